//! The least that steering could be, in three ways. They know UDP over IPv4 without options, one next hop, and
//! no rules: they mark the floor.

#![expect(
    unreachable_pub,
    reason = "the xdp macro makes a second function, which is public"
)]

use core::ptr;

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, DevMap, HashMap},
    helpers::generated::bpf_jiffies64,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

use crate::programs::start;

/// Packets by the bytes from the IPv4 source address to the ports.
#[btf_map]
static COUNTS: HashMap<[u32; 3], u64, 65_536> = HashMap::new();
/// Where the packets go.
#[btf_map]
static DEVICES: DevMap<1> = DevMap::new();
/// A cache of flows, as many as a power of two.
#[btf_map]
static CACHE: Array<Slot, 262_144> = Array::new();

/// Slots of the cache, less 1.
#[unsafe(no_mangle)]
static CACHE_MASK: u32 = 0;

/// A flow: one line of the CPU's cache.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Slot {
    /// Addresses, and ports with the protocol.
    key: [u64; 2],
    packets: u64,
    octets: u64,
    /// When there was a packet, in jiffies.
    seen: u64,
    /// Both addresses of the Ethernet header.
    addresses: [u32; 3],
}

/// Sends the packet on, and looks at nothing.
#[xdp(frags)]
pub fn redirect(_: XdpContext) -> u32 {
    send()
}

/// By a hash map of the kernel's: looks a flow up by addresses and ports, counts, writes addresses, redirects.
#[xdp(frags)]
pub fn lookup(ctx: XdpContext) -> u32 {
    const ADDRESSES: usize = 14 + 12;
    let Some(to) = start::<8>(&ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: it is inside of the frame, as was just seen.
    let addresses = unsafe { to.byte_add(ADDRESSES) };
    // SAFETY: as above.
    let key = unsafe { ptr::read_unaligned(addresses.cast::<[u32; 3]>()) };
    let Some(count) = COUNTS.get_ptr_mut(key) else {
        return xdp_action::XDP_PASS;
    };
    // SAFETY: values of a hash map are memory until the program ends.
    unsafe { *count += 1 };
    write(to.cast(), [0x0202_0202; 3]);
    send()
}

/// By a direct-mapped cache in an array: parses, compares, counts, writes addresses, takes one off the TTL, redirects.
/// A flow that is not there takes the place of the one that is.
#[xdp(frags)]
pub fn cache(ctx: XdpContext) -> u32 {
    let Some(frame) = start::<8>(&ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    // EtherType, version and length of the header; TTL and protocol.
    let (kind, hops) = (read::<u32>(frame, 12), read::<u16>(frame, 22));
    let (protocol, ttl) = (hops >> 8, hops & 0xff);
    if kind & 0x00ff_ffff != 0x0045_0008 || protocol != 17 || ttl <= 1 {
        return xdp_action::XDP_PASS;
    }
    // More fragments, or not the first.
    if read::<u16>(frame, 20) & 0xff3f != 0 {
        return xdp_action::XDP_PASS;
    }
    let key = [read::<u64>(frame, 26), read::<u32>(frame, 34).into()];
    // SAFETY: it is a word that nothing changes after the program was loaded.
    let mask = unsafe { ptr::read_volatile(&raw const CACHE_MASK) };
    let Some(slot) = CACHE.get_ptr_mut(hash(key) & mask) else {
        return xdp_action::XDP_ABORTED;
    };
    // SAFETY: one CPU runs this program, and values of an array are memory until it ends.
    let slot = unsafe { &mut *slot };
    if slot.key != key {
        *slot = Slot {
            key,
            packets: 0,
            octets: 0,
            seen: 0,
            addresses: [0x0202_0202; 3],
        };
    }
    slot.packets += 1;
    slot.octets += u64::from(u16::from_be(read(frame, 16)));
    // SAFETY: it takes no arguments.
    slot.seen = unsafe { bpf_jiffies64() };
    write(frame.cast(), slot.addresses);
    // RFC 1624, with the TTL in the low octet of its word.
    let sum = u32::from(read::<u16>(frame, 24)) + 1;
    put(frame, 22, hops - 1);
    put(frame, 24, (sum + (sum >> 16)) as u16);
    send()
}

fn hash([addresses, ports]: [u64; 2]) -> u32 {
    let word = addresses ^ ports.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 32).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (word ^ word >> 32) as u32
}

fn send() -> u32 {
    match DEVICES.redirect(0, xdp_action::XDP_ABORTED.into()) {
        Ok(action) | Err(action) => action,
    }
}

/// Writes the addresses of the Ethernet header of a frame of 64 octets.
fn write(frame: *mut u32, addresses: [u32; 3]) {
    for (at, word) in addresses.into_iter().enumerate() {
        // SAFETY: it is inside of the frame.
        let to = unsafe { frame.add(at) };
        // SAFETY: as above.
        unsafe { ptr::write_volatile(to, word) };
    }
}

/// A field of a frame of 64 octets.
fn read<T>(frame: *mut u64, at: usize) -> T {
    // SAFETY: it is inside of the frame.
    let from = unsafe { frame.byte_add(at) };
    // SAFETY: as above.
    unsafe { ptr::read_unaligned(from.cast()) }
}

/// Writes a field of a frame of 64 octets.
fn put(frame: *mut u64, at: usize, value: u16) {
    // SAFETY: it is inside of the frame.
    let to = unsafe { frame.byte_add(at) };
    // SAFETY: as above.
    unsafe { ptr::write_unaligned(to.cast(), value) };
}
