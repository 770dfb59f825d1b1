//! Memory shared with the program in the kernel: the elements of a map, without a system call each.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
};

use zerocopy::FromBytes;

use crate::Error;

/// The elements of an array.
///
/// Those that both sides change while packets flow are made of [`Word`](dataplane_core::Word)s. The others
/// are written only while no packet can reach them, and not changed until no packet can again.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    first: NonNull<T>,
    len: usize,
    /// Where the mapping begins, and its length.
    mapped: Option<(NonNull<u8>, usize)>,
}

// SAFETY: it is a pointer to memory that belongs to it alone in this process, of plain data.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: FromBytes> Shared<T> {
    /// Elements in memory of this process only, all zeros.
    pub(crate) fn heap(len: usize) -> Self {
        let elements: Box<[T]> = (0..len).map(|_| T::new_zeroed()).collect();
        let first = NonNull::from(Box::leak(elements)).cast();
        Self {
            first,
            len,
            mapped: None,
        }
    }

    /// The `len` elements of a BPF array that was made to be mapped.
    pub(crate) fn map(name: &'static str, fd: BorrowedFd<'_>, len: usize) -> Result<Self, Error> {
        Self::part(name, fd, 0, len)
    }

    /// `len` elements, `offset` bytes from the beginning of a BPF array that was made to be mapped.
    pub(crate) fn part(
        name: &'static str,
        fd: BorrowedFd<'_>,
        offset: usize,
        len: usize,
    ) -> Result<Self, Error> {
        // The kernel keeps elements at multiples of 8 bytes.
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() <= 8) };
        debug_assert!(offset.is_multiple_of(8), "{name} at {offset}");
        let bytes = (offset + len * size_of::<T>()).next_multiple_of(4096);
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        let error = || Error::Memory {
            name,
            source: io::Error::last_os_error(),
        };
        if address == libc::MAP_FAILED {
            return Err(error());
        }
        let start = NonNull::new(address.cast::<u8>()).ok_or_else(error)?;
        Ok(Self {
            // SAFETY: inside the mapping.
            first: unsafe { start.add(offset) }.cast(),
            len,
            mapped: Some((start, bytes)),
        })
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Where the element at `index` is.
    fn at(&self, index: usize) -> Option<NonNull<T>> {
        // SAFETY: the index is inside the memory.
        (index < self.len).then(|| unsafe { self.first.add(index) })
    }

    /// The element at `index`.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        // SAFETY: the memory lives as long as `self`; any bytes make a `T`.
        self.at(index).map(|element| unsafe { element.as_ref() })
    }

    /// All elements.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|index| self.get(index))
    }

    /// Replaces an element that no packet can reach.
    #[expect(
        clippy::needless_pass_by_ref_mut,
        reason = "writing what others may read is for the owner"
    )]
    pub(crate) fn write(&mut self, index: usize, value: T) {
        if let Some(element) = self.at(index) {
            // SAFETY: nobody else has it; volatile, because the kernel reads it.
            unsafe { element.write_volatile(value) };
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        match self.mapped {
            Some((start, bytes)) => {
                // SAFETY: what `part` mapped, and nothing borrows it any more.
                unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
            }
            None => {
                let elements = ptr::slice_from_raw_parts_mut(self.first.as_ptr(), self.len);
                // SAFETY: what `heap` leaked.
                drop(unsafe { Box::from_raw(elements) });
            }
        }
    }
}
