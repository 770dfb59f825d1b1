//! The least that steering could be. They know UDP over IPv4 without options, one next hop, and no rules, and of
//! tunnels GTP-U over IPv4 with a PDU Session Container: they mark the floor.

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

use crate::programs::{shift_by, start};

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
    /// The tunnel that packets are put into.
    teid: u32,
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
    let Some(slot) = steer(frame, 0, 0) else {
        return xdp_action::XDP_PASS;
    };
    write(frame.cast(), slot.addresses);
    send()
}

/// The same with a G-PDU, which is taken out of its tunnel.
#[xdp(frags)]
pub fn decapsulate(ctx: XdpContext) -> u32 {
    let Some(frame) = start::<16>(&ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    let known = is_udp(frame, 0)
        && read::<u16>(frame, 36) == PORT
        && read::<u16>(frame, 42) == G_PDU
        && read::<u32>(frame, 53) & 0xffff == 0x0185
        && read::<u8>(frame, 57) == 0;
    let Some(slot) = known
        .then(|| steer(frame, TUNNEL, read(frame, 46)))
        .flatten()
    else {
        return xdp_action::XDP_PASS;
    };
    shift_by(&ctx, TUNNEL as i32);
    let Some(frame) = start::<8>(&ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    write(frame.cast(), slot.addresses);
    put(frame, 12, IPV4);
    send()
}

/// The same with a packet that is put into a tunnel.
#[xdp(frags)]
pub fn encapsulate(ctx: XdpContext) -> u32 {
    let Some(frame) = start::<8>(&ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    let Some(slot) = steer(frame, 0, 0) else {
        return xdp_action::XDP_PASS;
    };
    let length = u16::from_be(read(frame, 16));
    shift_by(&ctx, -(TUNNEL as i32));
    let Some(frame) = start::<13>(&ctx) else {
        return xdp_action::XDP_ABORTED;
    };
    write(frame.cast(), slot.addresses);
    put(frame, 12, IPV4);
    let total = length + TUNNEL as u16;
    let sum = 0x4500 + 0x4000 + 0x4011 + u32::from(total) + 0xc633 + 0x6401 + 0xc000 + 0x0201;
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = !((sum >> 16) + sum) as u16;
    put(
        frame,
        14,
        (0x4500_0000_0000_4000 | u64::from(total) << 32).to_be(),
    );
    put(
        frame,
        22,
        (0x4011_0000_c633_6401 | u64::from(sum) << 32).to_be(),
    );
    put(frame, 30, 0xc000_0201u32.to_be());
    put(
        frame,
        34,
        (0x0868_0868_0000_0000 | u64::from(total - 20) << 16).to_be(),
    );
    let gtpu = 0x34ff_0000_0000_0000 | u64::from(length + 8) << 32;
    put(frame, 42, (gtpu | u64::from(slot.teid)).to_be());
    put(frame, 50, 0x0000_0085_0100_0900u64.to_be());
    send()
}

/// Octets of the headers of a tunnel.
const TUNNEL: usize = 20 + 8 + 8 + 8;
/// EtherType of IPv4, as it is on the wire.
const IPV4: u16 = 0x0800u16.to_be();
/// UDP port of GTP-U, as it is on the wire.
const PORT: u16 = 2152u16.to_be();
/// Flags and type of a G-PDU with an extension header, as they are on the wire.
const G_PDU: u16 = 0x34ffu16.to_be();

/// Whether it is a whole UDP packet over IPv4 without options, to be sent on, behind so many octets of a tunnel.
#[inline(always)]
fn is_udp(frame: *mut u64, outside: usize) -> bool {
    // Version and length of the header; TTL and protocol; more fragments, or not the first.
    let hops = read::<u16>(frame, 22 + outside);
    read::<u8>(frame, 14 + outside) == 0x45
        && hops >> 8 == 17
        && hops & 0xff > 1
        && read::<u16>(frame, 20 + outside) & 0xff3f == 0
}

/// Finds the slot of the packet behind so many octets of a tunnel, counts the packet, and takes one off its TTL.
#[inline(always)]
fn steer(frame: *mut u64, outside: usize, teid: u32) -> Option<&'static mut Slot> {
    if read::<u16>(frame, 12) != IPV4 || !is_udp(frame, outside) {
        return None;
    }
    let ports = read::<u32>(frame, 34 + outside);
    let key = [
        read::<u64>(frame, 26 + outside),
        u64::from(teid) << 32 | u64::from(ports),
    ];
    // SAFETY: it is a word that nothing changes after the program was loaded.
    let mask = unsafe { ptr::read_volatile(&raw const CACHE_MASK) };
    let slot = CACHE.get_ptr_mut(hash(key) & mask)?;
    // SAFETY: one CPU runs this program, and values of an array are memory until it ends.
    let slot = unsafe { &mut *slot };
    if slot.key != key {
        *slot = Slot {
            key,
            packets: 0,
            octets: 0,
            seen: 0,
            addresses: [0x0202_0202; 3],
            teid: 0x2_0000,
        };
    }
    slot.packets += 1;
    slot.octets += u64::from(u16::from_be(read(frame, 16 + outside)));
    // SAFETY: it takes no arguments.
    slot.seen = unsafe { bpf_jiffies64() };
    // RFC 1624, with the TTL in the low octet of its word.
    let hops = read::<u16>(frame, 22 + outside);
    let sum = u32::from(read::<u16>(frame, 24 + outside)) + 1;
    put(frame, 22 + outside, hops - 1);
    put(frame, 24 + outside, (sum + (sum >> 16)) as u16);
    Some(slot)
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

/// A field of a frame that has it.
fn read<T>(frame: *mut u64, at: usize) -> T {
    // SAFETY: it is inside of the frame.
    let from = unsafe { frame.byte_add(at) };
    // SAFETY: as above.
    unsafe { ptr::read_unaligned(from.cast()) }
}

/// Writes a field of a frame that has it.
fn put<T>(frame: *mut u64, at: usize, value: T) {
    // SAFETY: it is inside of the frame.
    let to = unsafe { frame.byte_add(at) };
    // SAFETY: as above.
    unsafe { ptr::write_unaligned(to.cast(), value) };
}
