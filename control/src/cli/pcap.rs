//! Classic capture files: a header, then records. <https://www.ietf.org/archive/id/draft-gharris-opsawg-pcap-01.html>

use anyhow::{Context as _, Result, bail, ensure};

const ETHERNET: u32 = 1;

/// The frames of a capture.
pub(super) fn frames(file: &[u8]) -> Result<Vec<Vec<u8>>> {
    let (header, mut rest) = file.split_at_checked(24).context("it is too short")?;
    let magic = [header[0], header[1], header[2], header[3]];
    let word: fn([u8; 4]) -> u32 = match u32::from_le_bytes(magic) {
        0xa1b2_c3d4 | 0xa1b2_3c4d => u32::from_le_bytes,
        0xd4c3_b2a1 | 0x4d3c_b2a1 => u32::from_be_bytes,
        0x0a0d_0d0a => bail!("it is a pcapng file; convert it with `editcap -F pcap`"),
        _ => bail!("it does not begin as a pcap file does"),
    };
    let at = |bytes: &[u8], offset: usize| {
        bytes[offset..]
            .first_chunk()
            .map(|chunk| word(*chunk))
            .unwrap_or_default()
    };
    ensure!(
        at(header, 20) & 0xffff == ETHERNET,
        "its link type is not Ethernet"
    );
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let (record, behind) = rest
            .split_at_checked(16)
            .context("its last record is cut off")?;
        let length = usize::try_from(at(record, 8))?;
        let (frame, behind) = behind
            .split_at_checked(length)
            .context("its last record is cut off")?;
        frames.push(frame.to_vec());
        rest = behind;
    }
    Ok(frames)
}
