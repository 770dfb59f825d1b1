//! N3 over IPv6, between sockets of real kernels: these take no datagram whose checksum is wrong or missing.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{net::UdpSocket, time::Duration};

use tests::{
    lab::{Lab, Mode, RawSocket, Server, Steering, run},
    packet::{Gtpu, Packet, Session},
};

/// How long a datagram may be under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nothing may come until nothing is expected.
const QUIET: Duration = Duration::from_millis(50);
/// The RAN's end of the tunnel, and the core's.
const RAN: &str = "[2001:db8:2::1]:2152";
const CORE: &str = "[2001:db8:2::2]:2152";

#[test]
fn a_base_station_takes_what_the_application_answers() {
    let n3 = N3::new();
    for question in questions() {
        n3.teach(&question);
        // Now that answers arrive, the application is asked.
        for length in [9, 10, 1200] {
            let question = question.clone().payload(length);
            n3.ask(&question);
            let answer = receive(&n3.station).unwrap();
            assert_eq!(
                (answer.teid, answer.said()),
                (8, Some(Session::Downlink(9)))
            );
            assert_eq!(datagram(&question, &answer), answer_to(&question));
        }
    }
}

/// The application's kernel is told what fits through the tunnel, and fragments what is longer from then on.
#[test]
fn an_application_learns_what_fits() {
    let n3 = N3::new();
    for (question, length) in questions().into_iter().zip([1408, 1388]) {
        n3.teach(&question);
        let question = question.payload(length);
        n3.ask(&question);
        assert_eq!(receive(&n3.station), None);
        n3.ask(&question);
        let pieces = [(); 2].map(|()| receive(&n3.station).unwrap());
        let answer = answer_to(&question);
        let [first, second] = pieces.each_ref().map(|piece| piece.content.len());
        assert!(first <= 1436 && second < 200, "{first} and {second}");
        let at_its_end = &pieces[1].content;
        assert!(answer.ends_with(at_its_end.split_at(at_its_end.len() - 4).1));
    }
}

/// Kernels take the original of what is copied without its tunnel, behind a wire and where they route it. What has
/// its checksum left to hardware is not copied, and goes on as well.
#[test]
fn the_original_of_a_copy_is_whole() {
    for mode in [Mode::Wire, Mode::Routed] {
        let lab = Lab::new(mode).unwrap();
        let mut steering = Steering::open(&lab.host, mode).unwrap();
        let rules = [
            "a/1 prio 1 packet to 203.0.113.9 duplicate mac 02:00:00:00:0a:01 via app0",
            "a/2 prio 1 packet to 2001:db8:203::9 duplicate mac 02:00:00:00:0a:01 via app0",
        ];
        steering.apply(&lab.host, &rules).unwrap();
        let core = match mode {
            Mode::Wire => &lab.network,
            Mode::Routed => &lab.host,
        };
        let gateway = core.enter(|| UdpSocket::bind(CORE)).unwrap();
        let station = lab.access.enter(|| UdpSocket::bind(RAN)).unwrap();
        let application = RawSocket::open(&lab.apps[0], "eth0").unwrap();
        for copies in [1, 0] {
            for length in [0, 9, 1200] {
                for question in questions() {
                    let inner = question.payload(length).network_bytes();
                    let up = Gtpu::pdu(7, inner.clone()).session(Session::Uplink(9));
                    station.send_to(&up.bytes(), CORE).unwrap();
                    assert_eq!(receive(&gateway), Some(up), "{mode:?}");
                    let mut came = application.drain(QUIET).unwrap();
                    came.retain(|frame| frame[14..] == inner);
                    assert_eq!(came.len(), copies, "{mode:?}");
                }
            }
            let mut to_hardware = lab.access.command("ethtool");
            run(to_hardware.args(["-K", "n6", "tx", "on"])).unwrap();
        }
    }
}

/// The lab with both ends of a tunnel, and rules that send datagrams to an application.
struct N3 {
    station: UdpSocket,
    gateway: UdpSocket,
    _steering: Steering,
    _servers: [Server; 3],
    _lab: Lab,
}

impl N3 {
    fn new() -> Self {
        let lab = Lab::new(Mode::Wire).unwrap();
        let servers = lab.serve().unwrap();
        let mut steering = Steering::open(&lab.host, Mode::Wire).unwrap();
        let rules = [
            "a/1 prio 1 flow to 203.0.113.9 proto udp forward ip 198.18.1.2 nat via app0",
            "a/2 prio 1 flow to 2001:db8:203::9 proto udp forward ip 2001:db8:a1::2 nat via app0",
        ];
        steering.apply(&lab.host, &rules).unwrap();
        Self {
            station: lab.access.enter(|| UdpSocket::bind(RAN)).unwrap(),
            gateway: lab.network.enter(|| UdpSocket::bind(CORE)).unwrap(),
            _steering: steering,
            _servers: servers,
            _lab: lab,
        }
    }

    /// Shows both directions of the UE's tunnel.
    fn teach(&self, question: &Packet) {
        let up = self.ask(question);
        assert_eq!(receive(&self.gateway), Some(up));
        let down = Gtpu::pdu(8, question.reversed().network_bytes());
        let down = down.session(Session::Downlink(9));
        self.gateway.send_to(&down.bytes(), RAN).unwrap();
        assert_eq!(receive(&self.station), Some(down));
    }

    fn ask(&self, question: &Packet) -> Gtpu {
        let up = Gtpu::pdu(7, question.network_bytes()).session(Session::Uplink(9));
        self.station.send_to(&up.bytes(), CORE).unwrap();
        up
    }
}

fn questions() -> [Packet; 2] {
    [
        Packet::udp("10.45.0.7:5000", "203.0.113.9:80"),
        Packet::udp("[2001:db8:45::7]:5000", "[2001:db8:203::9]:80"),
    ]
}

fn answer_to(question: &Packet) -> Vec<u8> {
    [b"app-a: ", &*question.payload].concat()
}

/// What a datagram in the tunnel, with the headers of the question, carries.
fn datagram(question: &Packet, message: &Gtpu) -> Vec<u8> {
    let headers = question.transport_offset() - question.network_offset() + 8;
    message.content.split_at(headers).1.to_vec()
}

/// What comes, if something does.
fn receive(socket: &UdpSocket) -> Option<Gtpu> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).ok()?;
    Some(Gtpu::parse(&buffer[..length]).unwrap())
}
