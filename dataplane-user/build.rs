//! Compiles the eBPF crate and leaves the object as `OUT_DIR/edgesteer-ebpf`, to be embedded.

#[path = "../dataplane-ebpf/object.rs"]
mod object;

fn main() -> anyhow::Result<()> {
    // What is compiled for the kernel is mostly this.
    println!("cargo:rerun-if-changed=../dataplane-core/src");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../dataplane-ebpf");
    object::build("dataplane-ebpf", root, "edgesteer-ebpf")
}
