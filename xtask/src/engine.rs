//! The HTTP interface of a Docker engine, over its socket, without its command line.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Result;
use crate::json::Value;

/// How long the engine may be silent: asked whether it is there, and at work.
const PING_LIMIT: Duration = Duration::from_secs(3);
const WORK_LIMIT: Duration = Duration::from_secs(120);

/// An engine that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Engine {
    host: Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Unix(PathBuf),
    Tcp(String),
}

impl Engine {
    /// Finds the engine that testcontainers will find: `DOCKER_HOST` if it is set, else the
    /// sockets at their usual places.
    pub(crate) fn find() -> Option<Self> {
        let hosts = match env::var("DOCKER_HOST") {
            Ok(host) if !host.is_empty() => host_from(&host).into_iter().collect(),
            _ => usual_hosts(),
        };
        hosts
            .into_iter()
            .map(|host| Self { host })
            .find(|engine| engine.ask("GET", "/_ping", None, PING_LIMIT).is_ok())
    }

    /// For `DOCKER_HOST` of the tests.
    pub(crate) fn address(&self) -> String {
        match &self.host {
            Host::Unix(path) => format!("unix://{}", path.display()),
            Host::Tcp(host) => format!("tcp://{host}"),
        }
    }

    /// Whether an image is present.
    pub(crate) fn has_image(&self, image: &str) -> bool {
        self.ask("GET", &format!("/images/{image}/json"), None, WORK_LIMIT).is_ok()
    }

    /// The images with this name and label that are present, and what another label of theirs
    /// says.
    pub(crate) fn images(
        &self,
        name: &str,
        label: &str,
        says: &str,
    ) -> Result<Vec<(String, String)>> {
        let filters = format!(r#"{{"reference":["{name}"],"label":["{label}"]}}"#);
        let path = format!("/images/json?filters={}", escaped(&filters));
        let mut found = Vec::new();
        for image in self.list(&path)? {
            let said = image.get("Labels").and_then(|labels| labels.get(says)?.text());
            let tags = image.get("RepoTags").map_or(&[][..], Value::items).iter();
            let said = said.unwrap_or_default();
            found.extend(tags.filter_map(|tag| Some((tag.text()?.to_owned(), said.to_owned()))));
        }
        Ok(found)
    }

    /// Has the engine fetch an image from its registry.
    pub(crate) fn pull(&self, name: &str, tag: &str) -> Result<()> {
        let path = format!("/images/create?fromImage={}&tag={tag}", escaped(name));
        let progress = self.ask("POST", &path, None, WORK_LIMIT)?;
        match failure(&progress) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Makes an image of one layer from a tar archive; `changes` are lines of a Dockerfile.
    pub(crate) fn import(&self, tar: &Path, image: (&str, &str), changes: &[&str]) -> Result<()> {
        let (name, tag) = image;
        let mut path = format!("/images/create?fromSrc=-&repo={name}&tag={tag}");
        for change in changes {
            path.push_str("&changes=");
            path.push_str(&escaped(change));
        }
        let progress = self.ask("POST", &path, Some(tar), WORK_LIMIT)?;
        match failure(&progress) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Removes all containers with this label, running or not, and returns how many there were.
    pub(crate) fn remove_containers(&self, label: &str) -> Result<usize> {
        let filters = escaped(&format!(r#"{{"label":["{label}"]}}"#));
        let containers = self.list(&format!("/containers/json?all=1&filters={filters}"))?;
        let ids = containers.iter().filter_map(|container| container.get("Id")?.text());
        for id in ids.clone() {
            let path = format!("/containers/{id}?force=1&v=1");
            self.ask("DELETE", &path, None, WORK_LIMIT)?;
        }
        Ok(ids.count())
    }

    fn list(&self, path: &str) -> Result<Vec<Value>> {
        let answer = self.ask("GET", path, None, WORK_LIMIT)?;
        let list = Value::parse(&answer).ok_or("the engine's answer is not JSON")?;
        Ok(list.items().to_vec())
    }

    /// Sends a request and returns the body of the answer. The protocol is HTTP/1.0: the body
    /// ends where the connection does, in one piece.
    fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Path>,
        limit: Duration,
    ) -> Result<String> {
        let mut stream = self.connect(limit)?;
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: docker\r\n");
        let body = body.map(File::open).transpose()?;
        if let Some(body) = &body {
            let length = body.metadata()?.len();
            head.push_str("Content-Type: application/x-tar\r\n");
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        if let Some(mut body) = body {
            io::copy(&mut body, &mut stream)?;
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        read_answer(&String::from_utf8_lossy(&answer))
    }

    fn connect(&self, limit: Duration) -> io::Result<Box<dyn Stream>> {
        match &self.host {
            #[cfg(unix)]
            Host::Unix(path) => {
                let stream = std::os::unix::net::UnixStream::connect(path)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                Ok(Box::new(stream))
            }
            #[cfg(not(unix))]
            Host::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Host::Tcp(host) => {
                let addr = host.to_socket_addrs()?.next();
                let addr = addr.ok_or(io::ErrorKind::NotFound)?;
                let stream = TcpStream::connect_timeout(&addr, PING_LIMIT)?;
                stream.set_read_timeout(Some(limit))?;
                stream.set_write_timeout(Some(limit))?;
                Ok(Box::new(stream))
            }
        }
    }
}

trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

fn host_from(docker_host: &str) -> Option<Host> {
    match docker_host.split_once("://")? {
        ("unix", path) => Some(Host::Unix(PathBuf::from(path))),
        ("tcp" | "http", host) => Some(Host::Tcp(host.trim_end_matches('/').to_owned())),
        _ => None,
    }
}

fn usual_hosts() -> Vec<Host> {
    let below = |variable: &str, path: &str| Some(PathBuf::from(env::var_os(variable)?).join(path));
    [
        Some(PathBuf::from("/var/run/docker.sock")),
        below("XDG_RUNTIME_DIR", ".docker/run/docker.sock"),
        below("XDG_RUNTIME_DIR", "docker.sock"),
        below("HOME", ".docker/run/docker.sock"),
        below("HOME", ".docker/desktop/docker.sock"),
    ]
    .into_iter()
    .flatten()
    .map(Host::Unix)
    .collect()
}

/// The body of an answer that says that all is well, or the engine's words if it is not.
fn read_answer(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(body.to_owned());
    }
    let message = Value::parse(body).and_then(|body| Some(body.get("message")?.text()?.to_owned()));
    Err(message.unwrap_or_else(|| format!("HTTP status {status}")).into())
}

/// The error in a report of progress, which has one JSON value in each line: by then, the status
/// that all is well has long been sent.
fn failure(progress: &str) -> Option<String> {
    progress
        .lines()
        .filter_map(Value::parse)
        .find_map(|line| Some(line.get("error")?.text()?.to_owned()))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        let unix = Host::Unix(PathBuf::from("/run/d.sock"));
        assert_eq!(host_from("unix:///run/d.sock"), Some(unix));
        assert_eq!(host_from("tcp://h:2375/"), Some(Host::Tcp("h:2375".into())));
        assert_eq!(host_from("ssh://h"), None);
    }

    #[test]
    fn answers_and_errors_are_read() {
        assert_eq!(read_answer("HTTP/1.0 200 OK\r\nA: b\r\n\r\nbody").unwrap(), "body");
        let refused = "HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"no such image\"}\n";
        assert_eq!(read_answer(refused).unwrap_err().to_string(), "no such image");
        assert!(read_answer("").is_err());
        let progress = "{\"status\":\"Pulling\"}\r\n{\"error\":\"denied\"}\r\n";
        assert_eq!(failure(progress).as_deref(), Some("denied"));
        assert_eq!(failure("{\"status\":\"done\"}\r\n"), None);
    }

    #[test]
    fn queries_are_escaped() {
        assert_eq!(escaped("ENV PATH=/bin"), "ENV%20PATH%3D%2Fbin");
    }
}
