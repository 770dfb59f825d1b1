//! Servers and clients with real sockets, each inside a namespace.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Namespace, run};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a datagram server looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);

/// Servers of one namespace: HTTP over TCP, and an echo over UDP.
///
/// Whatever they answer starts with their name, so that a client knows who served it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    listeners: Vec<TcpListener>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves HTTP and echoes datagrams at each of these addresses. One socket for each, so that
    /// answers leave with the address that was asked.
    pub fn start(namespace: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Self> {
        let mut server = Self {
            stop: Arc::new(AtomicBool::new(false)),
            listeners: Vec::new(),
            threads: Vec::new(),
        };
        for address in addresses {
            let (listener, socket) = namespace
                .enter(|| Ok((TcpListener::bind(address)?, UdpSocket::bind(address)?)))
                .map_err(|error: io::Error| error)
                .with_context(|| format!("{name}: {address}"))?;
            server.listeners.push(listener.try_clone()?);
            socket.set_read_timeout(Some(GLANCE))?;
            let (greeting, stop) = (name.to_owned(), Arc::clone(&server.stop));
            let accepting = move || accept(&listener, &greeting, &stop);
            server.threads.push(thread::spawn(accepting));
            let (greeting, stop) = (name.to_owned(), Arc::clone(&server.stop));
            let echoing = move || echo(&socket, &greeting, &stop);
            server.threads.push(thread::spawn(echoing));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for listener in &self.listeners {
            // SAFETY: the descriptor belongs to the listener. Shutting it down wakes accept(2).
            unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RD) };
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Asks for `path` over HTTP and returns the body of the answer.
pub fn http_get(namespace: &Namespace, server: SocketAddr, path: &str) -> Result<String> {
    http(namespace, server, "GET", path, "")
}

/// Sends `body` to `path` over HTTP and returns the body of the answer.
pub fn http_post(
    namespace: &Namespace,
    server: SocketAddr,
    path: &str,
    body: &str,
) -> Result<String> {
    http(namespace, server, "POST", path, body)
}

/// Asks for an echo, and fails when it does not come back.
pub fn ping(namespace: &Namespace, address: IpAddr) -> Result<()> {
    let mut command = namespace.command("busybox");
    command.args(["ping", "-c", "1", "-W", "2", &address.to_string()]);
    run(&mut command)
}

/// Sends a datagram and returns what comes back, or none when nothing does.
pub fn udp_ask(
    namespace: &Namespace,
    server: SocketAddr,
    question: &str,
    patience: Duration,
) -> Result<Option<String>> {
    let answer = namespace.enter(|| {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(patience))?;
        socket.send(question.as_bytes())?;
        let mut buffer = [0; 2048];
        match socket.recv(&mut buffer) {
            Ok(length) => Ok(Some(
                String::from_utf8_lossy(&buffer[..length]).into_owned(),
            )),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    });
    answer.with_context(|| format!("{} > {server}", namespace.name()))
}

/// Sends numbered datagrams to the echo that the socket is connected to, this long one after the other.
/// Answers who answered each.
pub fn exchange(socket: &UdpSocket, datagrams: u32, gap: Duration) -> Vec<Option<String>> {
    let mut answers = vec![None; datagrams as usize];
    let patience = socket.set_read_timeout(Some(PATIENCE));
    patience.expect("patience is not zero");
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> io::Result<()> {
            for number in 0..datagrams {
                socket.send(number.to_string().as_bytes())?;
                thread::sleep(gap);
            }
            Ok(())
        });
        let mut buffer = [0; 64];
        while answers.iter().any(Option::is_none) {
            let Ok(length) = socket.recv(&mut buffer) else {
                if sender.is_finished() {
                    break;
                }
                continue;
            };
            let answer = String::from_utf8_lossy(&buffer[..length]);
            let (who, number) = answer.split_once(": ").expect("an answer of an echo");
            let number: usize = number.parse().expect("the number that was sent");
            answers[number] = Some(who.to_owned());
        }
        let sent = sender.join().expect("sending does not panic");
        sent.expect("datagrams can be sent");
    });
    answers
}

fn http(
    namespace: &Namespace,
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<String> {
    let answer = namespace.enter(|| -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    let answer = answer.with_context(|| format!("{} > {server}", namespace.name()))?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{server}: {answer}");
    let (_, body) = answer.split_once("\r\n\r\n").context("no end of header")?;
    Ok(body.trim_end().to_owned())
}

fn accept(listener: &TcpListener, name: &str, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(stream) = stream {
            let name = name.to_owned();
            // A client that goes away is none of the server's business.
            thread::spawn(move || drop(answer(stream, &name)));
        }
    }
}

/// Answers each request of a connection with `NAME: METHOD PATH`, and a body sent along is echoed.
fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut request, mut close, mut length) = (String::new(), false, 0);
        if reader.read_line(&mut request)? == 0 {
            return stream.shutdown(Shutdown::Both);
        }
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(':') {
                Some(("connection", value)) => close = value.trim() == "close",
                Some(("content-length", value)) => length = value.trim().parse().unwrap_or(0),
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let mut text = format!("{name}: {method} {path}\n").into_bytes();
        text.extend(body);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            text.len()
        )?;
        stream.write_all(&text)?;
        if close {
            return stream.shutdown(Shutdown::Both);
        }
    }
}

fn echo(socket: &UdpSocket, name: &str, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let answer = [name.as_bytes(), b": ", &buffer[..length]].concat();
            let _ = socket.send_to(&answer, client);
        }
    }
}
