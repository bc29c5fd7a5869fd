//! Route and nftables netlink, in batches.
