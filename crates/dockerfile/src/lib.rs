//! The Dockerfile language: parsing, expansion, ignore files, checks.
