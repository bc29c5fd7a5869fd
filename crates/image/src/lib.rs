//! Images: configurations, manifests, names; pull, push, save, load.
