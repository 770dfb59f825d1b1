//! The packet in the driver's memory. The only place that touches it.

use core::{arch::asm, hint::assert_unchecked, intrinsics::is_val_statically_known, ptr};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_load_bytes,
    },
    programs::XdpContext,
};
use dataplane_core::{
    checksum::fold,
    packet::{Header, Packet},
};

use crate::maps;

/// Octets that are copied and summed up at once: as many as the kernel takes.
const CHUNK: usize = 512;

/// Room for them.
pub(crate) type Chunk = [u64; CHUNK / 8];

/// Chunks at most: the longest IP packet.
const CHUNKS: usize = 128;

/// An XDP frame. Headers are in its linear part; the payload may be spread over fragments.
pub(crate) struct Frame(XdpContext);

impl Frame {
    pub(crate) const fn new(ctx: XdpContext) -> Self {
        Self(ctx)
    }

    /// The context that it was made of.
    pub(crate) fn into_context(self) -> XdpContext {
        self.0
    }

    fn linear_len(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    fn at<T: Header>(&self, offset: usize) -> Option<*mut T> {
        let start = self.0.data() + within_reach(offset)?;
        // SAFETY: there are no packets at the beginning of memory.
        unsafe { assert_unchecked(start != 0) };
        (start + size_of::<T>() <= self.0.data_end()).then_some(start as *mut T)
    }

    fn adjust_head(&mut self, delta: i32) -> bool {
        // SAFETY: the context is the one the program was called with, and no view outlives `&mut self`.
        unsafe { bpf_xdp_adjust_head(self.0.as_ptr().cast(), delta) == 0 }
    }
}

impl Frame {
    /// Copies `len` octets at `offset` to the front of `chunk`, and adds all of that to `sum`: words in this
    /// host's order.
    #[inline(always)]
    fn add_chunk(&self, offset: usize, chunk: &mut Chunk, len: usize, sum: u32) -> Option<u32> {
        let chunk: *mut Chunk = chunk;
        // SAFETY: the context is the one the program was called with, and `len` octets fit the chunk.
        let copied = unsafe {
            bpf_xdp_load_bytes(
                self.0.as_ptr().cast(),
                offset as u32,
                chunk.cast(),
                len as u32,
            )
        };
        if copied != 0 {
            return None;
        }
        // SAFETY: nothing is read but the chunk.
        Some(unsafe { bpf_csum_diff(ptr::null_mut(), 0, chunk.cast(), CHUNK as u32, sum) as u32 })
    }
}

/// The offset, if headers are looked for there, in a form that the verifier can follow.
#[inline(always)]
pub(crate) fn within_reach(mut offset: usize) -> Option<usize> {
    // The same everywhere: there is nothing to follow.
    if is_val_statically_known(offset) {
        return (offset < Frame::REACH).then_some(offset);
    }
    // SAFETY: changes nothing. The compiler may not know where the offset comes from, or it
    // compares one sum and adds another, and the verifier does not see that they belong together.
    unsafe { asm!("{0} = {0}", inout(reg) offset, options(nomem, nostack)) };
    (offset < Frame::REACH).then_some(offset)
}

impl Packet for Frame {
    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        let header = self.at::<T>(offset)?;
        // SAFETY: `at` proved that all of it lies inside the packet; any bytes make a `T`, at any alignment.
        Some(unsafe { &*header })
    }

    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let header = self.at::<T>(offset)?;
        // SAFETY: as in `get`, and `&mut self` makes it the only view.
        Some(unsafe { &mut *header })
    }

    fn len(&self) -> usize {
        let len;
        // SAFETY: the context is the one the program was called with, and `bpf_xdp_get_buff_len` changes nothing. Written out,
        // so that the compiler knows that.
        unsafe {
            asm!(
                "call 188",
                lateout("r0") len,
                inlateout("r1") self.0.as_ptr() => _,
                out("r2") _,
                out("r3") _,
                out("r4") _,
                out("r5") _,
                options(pure, readonly, nostack),
            );
        }
        len
    }

    fn holds(&self, len: usize) -> bool {
        len <= self.linear_len() || len <= self.len()
    }

    fn sum(&self, offset: usize, len: usize) -> Option<u16> {
        let chunk = maps::chunk()?;
        let mut last = len.checked_sub(1)?;
        // SAFETY: changes nothing. Or the compiler finds other bounds than the verifier follows.
        unsafe { asm!("{0} = {0}", inout(reg) last) };
        let (full, rest) = (last / CHUNK, last % CHUNK + 1);
        // The last one first, which is filled up with zeros.
        chunk.fill(0);
        let mut sum = self.add_chunk(offset + full * CHUNK, chunk, rest, 0)?;
        for index in 0..CHUNKS {
            if index == full {
                return Some(u16::from_be(fold(sum)));
            }
            sum = self.add_chunk(offset + index * CHUNK, chunk, CHUNK, sum)?;
        }
        None
    }

    fn trim_front(&mut self, len: usize) -> bool {
        self.adjust_head(len as i32)
    }

    fn grow_front(&mut self, len: usize) -> bool {
        self.adjust_head(-(len as i32))
    }

    fn truncate(&mut self, len: usize) -> bool {
        let delta = len as i32 - self.len() as i32;
        // SAFETY: as in `adjust_head`.
        unsafe { bpf_xdp_adjust_tail(self.0.as_ptr().cast(), delta) == 0 }
    }
}
