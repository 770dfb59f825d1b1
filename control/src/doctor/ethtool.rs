//! What a driver does on its own: offloads and queues, by the ethtool ioctl.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const GET_STRINGS: u32 = 0x1b;
const GET_SET_INFO: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_SS_FEATURES`
const FEATURE_NAMES: u32 = 4;
/// `ETH_GSTRING_LEN`
const NAME: usize = 32;

/// The offloads that are switched on, by the kernel's names for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Features(BTreeSet<String>);

impl Features {
    /// Those of an interface of the calling thread's namespace.
    pub(super) fn of(interface: &str) -> io::Result<Self> {
        let mut info = [GET_SET_INFO, 0, 1 << FEATURE_NAMES, 0, 0];
        ioctl(interface, &mut info)?;
        let count = info[4] as usize;

        let mut names = vec![0; 3 + count * NAME / 4];
        names[..3].copy_from_slice(&[GET_STRINGS, FEATURE_NAMES, info[4]]);
        ioctl(interface, &mut names)?;
        let names: Vec<u8> = names[3..]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();

        let blocks = count.div_ceil(32);
        let mut states = vec![0; 2 + blocks * 4];
        states[..2].copy_from_slice(&[GET_FEATURES, blocks as u32]);
        ioctl(interface, &mut states)?;

        let active = |index: &usize| {
            // Of the four words of a block the third is what is active now.
            let word = states[2 + index / 32 * 4 + 2];
            word & (1 << (index % 32)) != 0
        };
        let name = |index: usize| {
            let name = names[index * NAME..][..NAME]
                .split(|byte| *byte == 0)
                .next();
            String::from_utf8_lossy(name.unwrap_or_default()).into_owned()
        };
        Ok(Self((0..count).filter(active).map(name).collect()))
    }

    /// Whether any of them is on.
    pub(super) fn any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.0.contains(*name))
    }
}

#[cfg(test)]
impl<const N: usize> From<[&str; N]> for Features {
    fn from(names: [&str; N]) -> Self {
        Self(names.into_iter().map(str::to_owned).collect())
    }
}

/// The queues of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Channels {
    /// Most receive queues it can use.
    pub(super) max_receive: u32,
    /// Receive queues in use.
    pub(super) receive: u32,
    /// Transmit queues in use.
    pub(super) transmit: u32,
}

impl Channels {
    /// Those of an interface of the calling thread's namespace.
    pub(super) fn of(interface: &str) -> io::Result<Self> {
        let mut words = [0; 9];
        words[0] = GET_CHANNELS;
        ioctl(interface, &mut words)?;
        let [
            _,
            max_receive,
            _,
            _,
            max_combined,
            receive,
            transmit,
            _,
            combined,
        ] = words;
        Ok(Self {
            max_receive: max_receive + max_combined,
            receive: receive + combined,
            transmit: transmit + combined,
        })
    }
}

/// Does the command in the first word; the answer comes in place.
fn ioctl(interface: &str, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request points to `words`, which each caller sized as its command needs.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
