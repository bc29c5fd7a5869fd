//! A client of the Engine API.
