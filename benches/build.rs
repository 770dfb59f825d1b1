//! Compiles the eBPF crate and leaves the object as `OUT_DIR/benches-ebpf`, to be embedded.

#[path = "../dataplane-ebpf/object.rs"]
mod object;

fn main() -> anyhow::Result<()> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/ebpf");
    object::build("benches-ebpf", root, "benches-ebpf")
}
