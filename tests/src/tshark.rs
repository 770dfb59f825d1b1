//! What Wireshark says to frames: an opinion from outside on all headers at once.

use std::{
    io::{self, Write},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, ensure};

/// Dissects the frames, verifies every checksum, and returns the values of these fields for each
/// frame, as `tshark -e` prints them: with commas where a field is there more than once.
///
/// Fails when anything is malformed, a checksum is wrong, or there is another reason to warn.
pub fn dissect(frames: &[Vec<u8>], fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r", "-", "-T", "fields", "-E", "separator=/t"]);
    for preference in PREFERENCES {
        command.args(["-o", preference]);
    }
    for field in COMPLAINTS.iter().chain(fields) {
        command.args(["-e", field]);
    }
    let printed = run(command, frames)?;
    let lines: Vec<Vec<String>> = printed
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect();
    ensure!(lines.len() == frames.len(), "tshark printed\n{printed}");
    let mut answers = Vec::new();
    for (mut line, frame) in lines.into_iter().zip(frames) {
        let values = line.split_off(COMPLAINTS.len());
        let [message, severity, protocols] = &line[..] else {
            unreachable!("these are the fields that come first");
        };
        let worst = severity.split(',').filter_map(|it| it.parse::<u32>().ok());
        ensure!(
            worst.max().unwrap_or(0) < WARNING,
            "{protocols}: {message}\n{frame:02x?}"
        );
        answers.push(values);
    }
    Ok(answers)
}

/// By default checksums are not verified, as NICs may compute them after the capture. The frames
/// are not a conversation.
const PREFERENCES: [&str; 6] = [
    "ip.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "sctp.checksum:CRC-32c",
    "tcp.analyze_sequence_numbers:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
];
/// What is wrong, how bad it is, and in what.
const COMPLAINTS: [&str; 3] = [
    "_ws.expert.message",
    "_ws.expert.severity",
    "frame.protocols",
];
/// Severity of a warning, `PI_WARN` of Wireshark.
const WARNING: u32 = 0x0060_0000;

fn run(mut command: Command, frames: &[Vec<u8>]) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start tshark: run `cargo xtask setup`")?;
    let input = child.stdin.take().context("tshark without input")?;
    let output = thread::scope(|scope| {
        let writing = scope.spawn(|| write(input, frames));
        let output = child.wait_with_output();
        writing.join().map(|written| (written, output))
    });
    let Ok((written, output)) = output else {
        unreachable!("writing does not panic");
    };
    let output = output?;
    ensure!(
        output.status.success(),
        "tshark: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    written?;
    Ok(String::from_utf8(output.stdout)?)
}

/// Writes a capture file of Ethernet frames: all of them at once, at the beginning of time.
fn write(mut file: impl Write, frames: &[Vec<u8>]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0x0004_0000, 1] {
        bytes.extend(u32::to_le_bytes(word));
    }
    for frame in frames {
        let length = (frame.len() as u32).to_le_bytes();
        bytes.extend([[0; 4], [0; 4], length, length].concat());
        bytes.extend(frame);
    }
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::packet::{Gre, Gtpu, Packet, Session, Vxlan};

    #[test]
    fn our_tunnels_are_what_wireshark_takes_them_for() {
        let inner = Packet::tcp("10.45.0.7:5000", "203.0.113.9:80");
        let pdu = Gtpu::pdu(0x1234, inner.network_bytes());
        let (v4, v6) = (
            ("192.0.2.1:40000", "192.0.2.10:2152"),
            ("[2001:db8:2::1]:40000", "[2001:db8:2::10]:2152"),
        );
        for (source, destination) in [v4, v6] {
            let over = |gtpu: Gtpu| gtpu.over(source, destination).bytes();
            let frames = [
                over(pdu.clone()),
                over(pdu.clone().sequence(5)),
                over(pdu.clone().session(Session::Uplink(9))),
                over(
                    pdu.clone()
                        .sequence(1)
                        .npdu(2)
                        .session(Session::Downlink(63)),
                ),
                over(pdu.clone().session(Session::Downlink(9)).udp_port(2152)),
                over(Gtpu::echo_request(7)),
                over(Gtpu::echo_response(7)),
                over(Gtpu::end_marker(0x1234)),
                over(Gtpu::end_marker(0x1234).session(Session::Downlink(9))),
                over(Gtpu::error_indication(0x1234, "192.0.2.10")),
                over(Gtpu::error_indication(0x1234, "2001:db8::1")),
                over(Gtpu::supported_extensions(&[0x85])),
            ];
            let fields = [
                "gtp.message",
                "gtp.teid",
                "gtp.ext_hdr.pdu_ses_con.qos_flow_id",
                "gtp.ext_hdr.pdu_ses_con.pdu_type",
                "gtp.teid_data",
                "tcp.dstport",
            ];
            let seen: Vec<String> = dissect(&frames, &fields)
                .unwrap()
                .iter()
                .map(|values| values.join(" "))
                .collect();
            assert_eq!(
                seen,
                [
                    "0xff 0x00001234    80",
                    "0xff 0x00001234    80",
                    "0xff 0x00001234 9 1  80",
                    "0xff 0x00001234 63 0  80",
                    "0xff 0x00001234 9 0  80",
                    "0x01 0x00000000    ",
                    "0x02 0x00000000    ",
                    "0xfe 0x00001234    ",
                    "0xfe 0x00001234 9 0  ",
                    "0x1a 0x00000000   0x00001234 ",
                    "0x1a 0x00000000   0x00001234 ",
                    "0x1f 0x00000000    ",
                ]
            );
        }
        let frames = [
            Gre::new(&inner)
                .key(7)
                .checksum()
                .over("192.0.2.1", "192.0.2.10"),
            Vxlan::new(9, &inner).over("192.0.2.1:4000", "192.0.2.10:4789"),
        ]
        .map(|packet| packet.bytes());
        let seen = dissect(&frames, &["gre.key", "vxlan.vni", "tcp.dstport"]).unwrap();
        assert_eq!(seen[0], ["0x00000007", "", "80"]);
        assert_eq!(seen[1], ["", "9", "80"]);
    }

    #[test]
    fn what_is_broken_is_complained_about() {
        let inner = Packet::tcp("10.45.0.7:5000", "203.0.113.9:80");
        let (source, destination) = ("192.0.2.1:2152", "192.0.2.10:2152");
        let sound = Gtpu::pdu(1, inner.network_bytes()).session(Session::Uplink(9));
        let frame = sound.over(source, destination).without_checksum().bytes();
        dissect(slice::from_ref(&frame), &[]).unwrap();
        let gtpu = 14 + 20 + 8;
        let tcp = gtpu + 16 + 20;
        for (at, value, complaint) in [
            (24, 1, "Bad checksum"),
            (gtpu + 12, 0, "Extension header length is zero"),
            (gtpu + 12, 40, "Malformed Packet"),
            (gtpu + 16 + 10, 0, "Bad checksum"),
            (tcp + 12, 0xf0, ""),
            (tcp + 16, 0, "Bad checksum"),
        ] {
            let mut broken = frame.clone();
            assert_ne!(broken[at], value, "octet {at}");
            broken[at] = value;
            let error = dissect(&[frame.clone(), broken], &[]).unwrap_err();
            assert!(error.to_string().contains(complaint), "octet {at}: {error}");
        }
        // RFC 8200 section 8.1: over IPv6, UDP has a checksum.
        let mut none = sound.over("[2001:db8::1]:1", "[2001:db8::2]:2152").bytes();
        none[14 + 40 + 6..14 + 40 + 8].fill(0);
        dissect(&[none], &[]).unwrap_err();
        let short = frame[..frame.len() - 1].to_vec();
        dissect(&[short], &[]).unwrap_err();
        let mut sum = sound.over(source, destination).bytes();
        sum[gtpu - 1] ^= 1;
        let error = dissect(&[sum], &[]).unwrap_err();
        assert!(error.to_string().contains("Bad checksum"), "{error}");
    }
}
