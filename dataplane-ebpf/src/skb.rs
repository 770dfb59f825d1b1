//! Copies of packets, made by traffic control.

use aya_ebpf::{
    helpers::generated::{
        bpf_clone_redirect, bpf_redirect, bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop,
        bpf_skb_vlan_push,
    },
    programs::TcContext,
};
use dataplane_core::{
    packet::{Header, Packet},
    steer::{self, Duplicate},
};

use crate::{
    frame::within_reach,
    maps::{self, Maps},
};

/// Bytes that headers are looked for in.
const HEADERS: u32 = 256;

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
    send_copy(ctx, &wanted);
    if wanted.original == 0 {
        return None;
    }
    // SAFETY: the helper has no preconditions.
    Some(unsafe { bpf_redirect(wanted.original, 0) } as i32)
}

/// Makes the packet what the copy is to be, clones it, and makes it what it was.
fn send_copy(ctx: &TcContext, wanted: &Duplicate) {
    let Some(macs) = Skb(ctx).get::<[u8; 12]>(0).copied() else {
        return;
    };
    let skb = ctx.skb.skb;
    let outer = pop_tag(ctx);
    let inner = pop_tag(ctx);
    // As one number: six bytes at a time would be stored across words, which the stack does not allow.
    let address = |word: u64| u128::from(word & 0xffff_ffff_ffff);
    let copy = address(wanted.destination) << 80 | address(wanted.source) << 32;
    store(ctx, &copy.to_be_bytes());
    // SAFETY: the context is the one the program was called with.
    unsafe { bpf_clone_redirect(skb, wanted.copy, 0) };
    store(ctx, &macs);
    for (protocol, tci) in [inner, outer].into_iter().flatten() {
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_push(skb, protocol, tci) };
    }
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

/// Writes the first twelve bytes over the packet's addresses.
fn store(ctx: &TcContext, macs: &[u8]) {
    // SAFETY: both callers have as many; the packet does too, since its addresses were read.
    unsafe { bpf_skb_store_bytes(ctx.skb.skb.cast(), 0, macs.as_ptr().cast(), 12, 0) };
}
