//! The daemon: configuration, listeners, order of start and stop.
