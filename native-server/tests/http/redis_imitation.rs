//! An imitation of Redis that fails in every way on demand. It knows what the shared cache asks, and no more.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// How an imitated Redis behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Works,
    /// Takes connections and says nothing.
    Mute,
    /// Greets, and never answers a question.
    FallsSilent,
    /// Says what is no RESP.
    Garbage,
    /// Begins an answer and closes the connection.
    DiesInTheMiddle,
    /// Closes at the first byte.
    HangsUp,
    /// Greets, and refuses every question.
    Refuses,
    /// Announces an answer of a gigabyte.
    Huge,
}

/// What a test sees of an imitated Redis.
pub(crate) struct Redis {
    address: SocketAddr,
    pub(crate) values: Mutex<HashMap<String, Vec<u8>>>,
    pub(crate) manner: Mutex<Manner>,
    /// Commands in order, without their arguments.
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Redis {
    pub(crate) async fn start(manner: Manner) -> Arc<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Self::serve(listener, manner)
    }

    pub(crate) fn serve(listener: TcpListener, manner: Manner) -> Arc<Self> {
        let redis = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            values: Mutex::default(),
            manner: Mutex::new(manner),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&redis);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let redis = Arc::clone(&serving);
                // A client that goes is no event.
                tokio::spawn(async move { drop(redis.answer(stream).await) });
            }
        });
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://:pa55word@{}/", self.address)
    }

    pub(crate) fn holds(&self, words: &str) -> bool {
        let wanted = format!(r#""transcription":"{words}""#);
        self.values.lock().unwrap().values().any(|value| String::from_utf8_lossy(value).contains(&wanted))
    }

    fn manner(&self) -> Manner {
        *self.manner.lock().unwrap()
    }

    async fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(command) = read_command(&mut stream).await? {
            let name = command[0].to_ascii_uppercase();
            self.asked.lock().unwrap().push(name.clone());
            let is_question = matches!(name.as_str(), "GETRANGE" | "SET");
            let manner = self.manner();
            match manner {
                Manner::Mute => continue,
                Manner::HangsUp => return Ok(()),
                Manner::Garbage => stream.write_all(b"\x00\xffHTTP/1.1 400 Bad Request\r\n\r\n").await?,
                Manner::Works => {
                    let answer = self.execute(&name, &command);
                    stream.write_all(&answer).await?;
                }
                // From here on the greeting works.
                _ if !is_question => stream.write_all(b"+OK\r\n").await?,
                Manner::FallsSilent => continue,
                Manner::DiesInTheMiddle => {
                    stream.write_all(b"$1000\r\n{\"filename\": \"").await?;
                    return Ok(());
                }
                Manner::Refuses => {
                    stream.write_all(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n").await?
                }
                Manner::Huge => stream.write_all(b"$1073741824\r\n{\"filename\": \"").await?,
            }
        }
        Ok(())
    }

    fn execute(&self, name: &str, command: &[String]) -> Vec<u8> {
        let mut values = self.values.lock().unwrap();
        match (name, command) {
            ("AUTH", [_, password]) if password == "pa55word" => b"+OK\r\n".to_vec(),
            ("CLIENT", _) => b"+OK\r\n".to_vec(),
            ("GETRANGE", [_, key, from, to]) => {
                let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                let value = values.get(key).map_or(&[][..], |value| &value[from..value.len().min(to + 1)]);
                [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
            }
            ("SET", [_, key, value, px, ttl_ms]) => {
                assert!(px == "PX" && ttl_ms.parse::<u64>().unwrap() > 0, "{px} {ttl_ms}");
                values.insert(key.clone(), value.clone().into_bytes());
                b"+OK\r\n".to_vec()
            }
            _ => b"-ERR unknown command\r\n".to_vec(),
        }
    }
}

/// A command as clients send it: an array of texts. `None` at the end.
async fn read_command(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<String>>> {
    let Some(n_parts) = read_number(stream, '*').await? else { return Ok(None) };
    let mut parts = Vec::new();
    for _ in 0..n_parts {
        let Some(len) = read_number(stream, '$').await? else { return Ok(None) };
        let mut part = vec![0; len + 2];
        stream.read_exact(&mut part).await?;
        part.truncate(len);
        parts.push(String::from_utf8(part).unwrap());
    }
    Ok(Some(parts))
}

async fn read_number(stream: &mut BufReader<TcpStream>, kind: char) -> io::Result<Option<usize>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().strip_prefix(kind).unwrap().parse().unwrap()))
}
