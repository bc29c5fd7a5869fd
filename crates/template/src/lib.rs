//! Go text templates, as Docker's --format takes them.
