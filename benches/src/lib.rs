//! Benchmarks of edgesteer.
