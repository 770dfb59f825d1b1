//! The web server of the applications and of the data network.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result};

/// What `/film` weighs.
const FILM: usize = 8 << 20;

/// Answers every request at the addresses with the greeting, or with a film.
pub(crate) fn forever(greeting: &str, addresses: &[&str]) -> Result<()> {
    thread::scope(|scope| {
        for address in addresses {
            let listener = TcpListener::bind(address).with_context(|| (*address).to_owned())?;
            scope.spawn(move || {
                for stream in listener.incoming().flatten() {
                    // A client that goes away is none of the server's business.
                    scope.spawn(move || drop(answer(stream, greeting)));
                }
            });
        }
        Ok(())
    })
}

fn answer(mut stream: TcpStream, greeting: &str) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let body = match request.split(' ').nth(1) {
        Some("/film") => vec![b'~'; FILM],
        _ => format!("{greeting}\n").into_bytes(),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}
