//! Copies of packets, made by traffic control.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_RECOMPUTE_CSUM, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC},
    helpers::generated::{
        bpf_clone_redirect, bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room,
        bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
        bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use dataplane_core::{
    packet::{Header, Packet},
    steer::{self, Duplicate},
    wire::ethernet,
};

use crate::{
    frame::{Chunk, within_reach},
    maps::{self, Maps},
};

/// Bytes that headers are looked for in.
const HEADERS: u32 = 256;

/// Octets of an Ethernet header without tags.
const ETHERNET: u32 = 14;

/// Where its EtherType is.
const ETHERTYPE: usize = 12;

/// The TPID of a customer VLAN tag (IEEE 802.1Q).
const VLAN: u16 = 0x8100;

/// A packet in the kernel's network stack, to be looked at only. Its outer VLAN tag is kept beside it.
struct Skb<'a>(&'a TcContext);

impl Packet for Skb<'_> {
    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        let start = self.0.data() + within_reach(offset)?;
        if start + size_of::<T>() > self.0.data_end() {
            return None;
        }
        // SAFETY: all of it lies inside the packet; any bytes make a `T`, at any alignment.
        Some(unsafe { &*(start as *const T) })
    }

    fn get_mut<T: Header>(&mut self, _offset: usize) -> Option<&mut T> {
        None
    }

    fn len(&self) -> usize {
        self.0.len() as usize
    }

    fn sum(&self, _offset: usize, _len: usize) -> Option<u16> {
        None
    }

    fn trim_front(&mut self, _len: usize) -> bool {
        false
    }

    fn grow_front(&mut self, _len: usize) -> bool {
        false
    }

    fn truncate(&mut self, _len: usize) -> bool {
        false
    }
}

/// Sends the copy that a rule asks for. Answers what becomes of the packet itself, if that is not what
/// becomes of every packet.
pub(crate) fn duplicate(ctx: &TcContext) -> Option<i32> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the one the program was called with.
    unsafe { bpf_skb_pull_data(skb, HEADERS.min(ctx.len())) };
    // SAFETY: as above.
    let ifindex = unsafe { (*skb).ingress_ifindex };
    let wanted = steer::duplicate(&Skb(ctx), ifindex, &Maps::<true, true>, maps::scratch()?)?;
    if !send_copy(ctx, &wanted) {
        return Some(TC_ACT_SHOT);
    }
    if wanted.original == 0 {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    Some(unsafe { bpf_redirect(wanted.original, 0) } as i32)
}

/// Makes the packet what the copy is to be, clones it, and makes it what it was. Answers whether it is.
fn send_copy(ctx: &TcContext, wanted: &Duplicate) -> bool {
    let Some(macs) = Skb(ctx).get::<[u8; 12]>(0).copied() else {
        return true;
    };
    let outer = pop_tag(ctx);
    let inner = pop_tag(ctx);
    let restored = if wanted.outside == 0 {
        clone(ctx, wanted);
        true
    } else {
        clone_inside(ctx, wanted)
    };
    store(ctx, 0, &macs);
    for (protocol, tci) in [inner, outer].into_iter().flatten() {
        push_tag(ctx, protocol, tci);
    }
    restored
}

/// Clones the packet, with the addresses of the copy.
#[inline(always)]
fn clone(ctx: &TcContext, wanted: &Duplicate) {
    // As one number: six bytes at a time would be stored across words, which the stack does not allow.
    let address = |word: u64| u128::from(word & 0xffff_ffff_ffff);
    let copy = address(wanted.destination) << 80 | address(wanted.source) << 32;
    if let Some(macs) = copy.to_be_bytes().first_chunk::<12>() {
        store(ctx, 0, macs);
    }
    // SAFETY: the context is the one the program was called with.
    unsafe { bpf_clone_redirect(ctx.skb.skb, wanted.copy, 0) };
}

/// Clones what is in the tunnel, and puts the headers that are outside round the packet again. Answers whether
/// they are. Of what is left to hardware nothing is taken off, since that could not be undone.
#[inline(always)]
fn clone_inside(ctx: &TcContext, wanted: &Duplicate) -> bool {
    let skb = ctx.skb.skb;
    let mut last = u64::from(wanted.outside.wrapping_sub(1));
    // SAFETY: changes nothing. Or the compiler finds other bounds than the verifier follows.
    unsafe { asm!("{0} = {0}", inout(reg) last) };
    let len = (last % 256) as u32 + 1;
    let ethertype = Skb(ctx).get::<[u8; 2]>(ETHERTYPE).copied();
    let (Some(outside), Some(ethertype)) = (maps::chunk(), ethertype) else {
        return true;
    };
    let ethertype = u16::from_be_bytes(ethertype);
    if !matches!(ethertype, ethernet::IPV4 | ethernet::IPV6) {
        return true;
    }
    let outside: *mut Chunk = outside;
    // SAFETY: the context is the one the program was called with, and so many octets fit the chunk.
    let loaded = unsafe { bpf_skb_load_bytes(skb.cast(), ETHERNET, outside.cast(), len) };
    if loaded != 0 || is_left_to_hardware(ctx) {
        return true;
    }
    let recompute = BPF_F_RECOMPUTE_CSUM.into();
    set_ethertype(ctx, ethertype, wanted.ethertype);
    let restored = if grow(ctx, -(len as i32)) {
        clone(ctx, wanted);
        let room = grow(ctx, len as i32);
        // SAFETY: as above.
        let store =
            || unsafe { bpf_skb_store_bytes(skb.cast(), ETHERNET, outside.cast(), len, recompute) };
        room && store() == 0
    } else {
        true
    };
    set_ethertype(ctx, wanted.ethertype, ethertype);
    restored
}

/// Whether segments or checksums are left to hardware. The second is told by what the kernel does when it should
/// correct a checksum: nothing then. The octets of an address that are taken for one are written again later.
fn is_left_to_hardware(ctx: &TcContext) -> bool {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the one the program was called with.
    if unsafe { (*skb).gso_size } != 0 {
        return true;
    }
    let before = Skb(ctx).get::<[u8; 2]>(0).copied();
    // SAFETY: as above.
    unsafe { bpf_l4_csum_replace(skb, 0, 0, 1, 2) };
    before == Skb(ctx).get::<[u8; 2]>(0).copied()
}

/// Replaces the EtherType of an untagged packet. What the kernel has noted of it, which room is measured by, it
/// reads anew when a tag in the packet is taken off.
#[inline(always)]
fn set_ethertype(ctx: &TcContext, old: u16, new: u16) {
    if old == new {
        return;
    }
    store(ctx, ETHERTYPE as u32, &new.to_be_bytes());
    // The first goes into the packet when there is a second.
    push_tag(ctx, VLAN.to_be(), 1);
    push_tag(ctx, VLAN.to_be(), 1);
    pop_tag(ctx);
    pop_tag(ctx);
}

/// Makes room behind the Ethernet header, or takes away what is there.
fn grow(ctx: &TcContext, by: i32) -> bool {
    // SAFETY: the context is the one the program was called with.
    unsafe { bpf_skb_adjust_room(ctx.skb.skb, by, BPF_ADJ_ROOM_MAC, 0) == 0 }
}

/// Takes the outer VLAN tag off: its protocol, in network order, and its TCI.
fn pop_tag(ctx: &TcContext) -> Option<(u16, u16)> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the one the program was called with.
    let fields = unsafe { &*skb };
    let (present, protocol, tci) = (fields.vlan_present, fields.vlan_proto, fields.vlan_tci);
    if present == 0 {
        return None;
    }
    // SAFETY: as above.
    unsafe { bpf_skb_vlan_pop(skb) };
    Some((protocol as u16, tci as u16))
}

/// Puts a VLAN tag on; the protocol is in network order.
fn push_tag(ctx: &TcContext, protocol: u16, tci: u16) {
    // SAFETY: the context is the one the program was called with.
    unsafe { bpf_skb_vlan_push(ctx.skb.skb, protocol, tci) };
}

/// Writes over octets of the Ethernet header.
#[inline(always)]
fn store<const LEN: usize>(ctx: &TcContext, at: u32, octets: &[u8; LEN]) {
    let from = octets.as_ptr().cast();
    // SAFETY: the context is the one the program was called with, and there are so many octets to read.
    unsafe { bpf_skb_store_bytes(ctx.skb.skb.cast(), at, from, LEN as u32, 0) };
}
