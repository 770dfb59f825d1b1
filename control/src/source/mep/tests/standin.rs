//! A platform that answers as told, byte by byte.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// What to answer.
#[derive(Clone)]
pub(super) struct Reply {
    bytes: Vec<u8>,
    delay: Duration,
}

impl Reply {
    /// Whatever it is.
    pub(super) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            bytes: bytes.into(),
            delay: Duration::ZERO,
        }
    }

    /// A whole answer with these header lines, each with its line end.
    pub(super) fn new(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
        Self::raw([head.as_bytes(), body].concat())
    }

    /// 200 with a document.
    pub(super) fn json(body: impl ToString) -> Self {
        Self::new(
            "200 OK",
            "content-type: application/json\r\n",
            body.to_string(),
        )
    }

    /// What goes over the wire.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same, later.
    pub(super) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// The server. What has no reply is 404.
pub(super) struct StandIn {
    address: SocketAddr,
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let standin = Self {
            address: listener.local_addr().unwrap(),
            replies: Arc::default(),
            requests: Arc::default(),
        };
        let replies = Arc::clone(&standin.replies);
        let requests = Arc::clone(&standin.requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (replies, requests) = (Arc::clone(&replies), Arc::clone(&requests));
                thread::spawn(move || serve(&stream, &replies, &requests));
            }
        });
        standin
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on a path is answered like that.
    pub(super) fn on(&self, path: &str, reply: Reply) {
        self.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// From now on nothing is known.
    pub(super) fn forget(&self) {
        self.replies.lock().unwrap().clear();
    }

    /// The requests since the last call, head by head.
    pub(super) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(
    stream: &TcpStream,
    replies: &Mutex<BTreeMap<String, Reply>>,
    requests: &Mutex<Vec<String>>,
) {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    requests.lock().unwrap().push(head);
    let missing = || Reply::new("404 Not Found", "", "");
    let reply = replies.lock().unwrap().get(&path).cloned();
    let reply = reply.unwrap_or_else(missing);
    thread::sleep(reply.delay);
    let mut stream = stream;
    // The client may have gone, as it should when this takes too long.
    let _ = stream.write_all(&reply.bytes);
    let _ = stream.shutdown(Shutdown::Both);
}
