//! The database, the blobs and their collection.
