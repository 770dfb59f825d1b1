//! A number that packets on several CPUs and user space share.

/// 64 bits in shared memory, read and written whole.
///
/// The BPF back end cannot compile atomic loads and stores; there, an aligned access of a
/// [`Cell`](core::cell::Cell) is one instruction and nothing less.
#[derive(Debug, Default)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(transparent)]
pub struct Word(Shared);

#[cfg(target_arch = "bpf")]
type Shared = core::cell::Cell<u64>;
#[cfg(not(target_arch = "bpf"))]
type Shared = core::sync::atomic::AtomicU64;

#[cfg(target_arch = "bpf")]
impl Word {
    /// The value.
    pub const fn get(&self) -> u64 {
        self.0.get()
    }

    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// Where it is, for instructions that the compiler does not know.
    pub const fn as_ptr(&self) -> *mut u64 {
        self.0.as_ptr()
    }
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Release},
    };

    impl super::Word {
        /// The value, and all that was written before it.
        pub fn get(&self) -> u64 {
            self.0.load(Acquire)
        }

        /// Sets the value, after all that was written before.
        pub fn set(&self, value: u64) {
            self.0.store(value, Release);
        }

        /// For what has to be done to it in one step.
        pub const fn atomic(&self) -> &AtomicU64 {
            &self.0
        }

        /// Adds to it.
        pub fn add(&self, value: u64) {
            self.0.fetch_add(value, AcqRel);
        }

        /// Makes it `new` if it is `expected`. Answers what it was.
        pub fn exchange(&self, expected: u64, new: u64) -> u64 {
            match self.0.compare_exchange(expected, new, AcqRel, Acquire) {
                Ok(found) | Err(found) => found,
            }
        }
    }
}
