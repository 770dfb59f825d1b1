//! Empty on purpose: a library target lets cargo rebuild what depends on the eBPF object.
#![no_std]
