//! Before a server that answers every byte with the same byte.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Direction::{ToClient, ToServer};
use super::*;

/// Longer than anything takes that is to happen.
const LONG: Duration = Duration::from_secs(20);

/// Starts an echo server and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Proxy::start(addr).await.unwrap()
}

async fn client(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.unwrap()
}

async fn send(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).await.unwrap();
}

async fn receive(client: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    let read = client.read_exact(&mut bytes);
    timeout(LONG, read).await.expect("an answer").unwrap();
    bytes
}

/// Reads to the end: what came, and whether the end was a reset.
async fn end(client: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let mut byte = [0];
    loop {
        match timeout(LONG, client.read(&mut byte)).await.expect("an end") {
            Ok(0) => return (bytes, false),
            Ok(_) => bytes.extend(byte),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                return (bytes, true);
            }
        }
    }
}

async fn wait(proxy: &Proxy, condition: impl FnMut(&Proxy) -> bool) {
    timeout(LONG, proxy.until(condition)).await.unwrap();
}

#[tokio::test]
async fn bytes_pass_and_are_counted() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    send(&mut client, b"hello").await;
    assert_eq!(receive(&mut client, 5).await, b"hello");
    wait(&proxy, |proxy| proxy.bytes_to_client() == 5).await;
    assert_eq!((proxy.connections(), proxy.bytes_to_server()), (1, 5));
    client.shutdown().await.unwrap();
    assert_eq!(end(&mut client).await, (vec![], false));
}

#[tokio::test]
async fn swallowed_bytes_are_lost_and_the_rest_passes() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    proxy.set(ToClient, Mode::Swallow);
    send(&mut client, b"lost").await;
    wait(&proxy, |proxy| proxy.swallowed(ToClient) == 4).await;
    proxy.heal();
    send(&mut client, b"kept").await;
    assert_eq!(receive(&mut client, 4).await, b"kept");
    assert_eq!((proxy.bytes_to_server(), proxy.swallowed(ToServer)), (8, 0));
}

#[tokio::test]
async fn stalled_bytes_are_delivered_after_healing() {
    for direction in [ToServer, ToClient] {
        let proxy = echo().await;
        let mut client = client(&proxy).await;
        proxy.set(direction, Mode::Stall);
        send(&mut client, b"one").await;
        let silent = timeout(Duration::from_millis(20), client.readable()).await;
        assert!(silent.is_err());
        assert_eq!(proxy.delivered(direction), 0);
        send(&mut client, b"two").await;
        proxy.heal();
        assert_eq!(receive(&mut client, 6).await, b"onetwo");
    }
}

#[tokio::test]
async fn delayed_and_dripping_bytes_take_their_time() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    let (start, delay) = (Instant::now(), Duration::from_millis(20));
    proxy.set(ToServer, Mode::Delay(delay));
    proxy.set(ToClient, Mode::Drip(delay));
    send(&mut client, b"abc").await;
    assert_eq!(receive(&mut client, 3).await, b"abc");
    assert!(start.elapsed() >= 4 * delay, "{:?}", start.elapsed());
    // A delay ends early when the proxy is healed.
    proxy.set_both(Mode::Delay(Duration::from_secs(3600)));
    send(&mut client, b"d").await;
    proxy.heal();
    assert_eq!(receive(&mut client, 1).await, b"d");
}

#[tokio::test]
async fn cut_resets_open_connections_only() {
    let proxy = echo().await;
    let mut first = client(&proxy).await;
    send(&mut first, b"a").await;
    receive(&mut first, 1).await;
    proxy.cut();
    assert!(end(&mut first).await.1);
    let mut second = client(&proxy).await;
    send(&mut second, b"b").await;
    assert_eq!(receive(&mut second, 1).await, b"b");
}

#[tokio::test]
async fn connections_are_refused_until_healed() {
    let proxy = echo().await;
    let mut before = client(&proxy).await;
    proxy.refuse();
    assert!(end(&mut before).await.1);
    let refused = TcpStream::connect(proxy.addr()).await.map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
    proxy.heal();
    let mut after = loop {
        match TcpStream::connect(proxy.addr()).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    send(&mut after, b"a").await;
    assert_eq!(receive(&mut after, 1).await, b"a");
}

#[tokio::test]
async fn a_connection_is_cut_once_at_the_byte_asked_for() {
    for bytes in 0..4 {
        let proxy = echo().await;
        let mut cut = client(&proxy).await;
        proxy.cut_after(ToClient, bytes);
        send(&mut cut, b"abcd").await;
        let expected = b"abcd"[..bytes as usize].to_vec();
        assert_eq!(end(&mut cut).await, (expected, false));
        assert_eq!((proxy.bytes_to_server(), proxy.bytes_to_client()), (4, bytes));
        let mut next = client(&proxy).await;
        send(&mut next, b"ef").await;
        assert_eq!(receive(&mut next, 2).await, b"ef");
    }
}

#[tokio::test]
async fn the_server_gets_all_bytes_before_the_cut() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let mut client = client(&proxy).await;
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.cut_after(ToServer, 3);
    assert_eq!(proxy.cuts(), 0);
    send(&mut client, b"abcd").await;
    assert_eq!(end(&mut server).await, (b"abc".to_vec(), false));
    assert_eq!(end(&mut client).await, (vec![], true));
    assert_eq!(proxy.cuts(), 1);
}

#[tokio::test]
async fn one_chunk_is_swallowed_and_the_connection_goes_on_or_is_cut() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    proxy.swallow_next(ToClient, Then::Go);
    send(&mut client, b"lost").await;
    wait(&proxy, |proxy| proxy.swallowed(ToClient) == 4).await;
    send(&mut client, b"kept").await;
    assert_eq!(receive(&mut client, 4).await, b"kept");
    proxy.swallow_next(ToServer, Then::Cut);
    send(&mut client, b"lost").await;
    assert_eq!(end(&mut client).await, (vec![], true));
    assert_eq!(proxy.bytes_to_server(), 8);
}

#[tokio::test]
async fn healing_takes_back_what_has_not_happened() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    proxy.cut_after(ToClient, 1);
    proxy.swallow_next(ToServer, Then::Cut);
    proxy.heal();
    send(&mut client, b"ab").await;
    assert_eq!(receive(&mut client, 2).await, b"ab");
    assert_eq!(proxy.cuts(), 0);
}

#[tokio::test]
async fn a_server_that_is_down_resets_its_clients() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    drop(listener);
    if let Ok(mut client) = TcpStream::connect(proxy.addr()).await {
        assert!(end(&mut client).await.1);
    }
}

#[tokio::test]
async fn dropping_the_proxy_closes_everything() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    send(&mut client, b"a").await;
    receive(&mut client, 1).await;
    let addr = proxy.addr();
    drop(proxy);
    end(&mut client).await;
    timeout(LONG, async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_end_is_no_reset() {
    let proxy = echo().await;
    let mut old = client(&proxy).await;
    send(&mut old, b"ab").await;
    assert_eq!(receive(&mut old, 2).await, b"ab");
    proxy.end();
    assert_eq!(end(&mut old).await, (Vec::new(), false));
    let mut new = client(&proxy).await;
    send(&mut new, b"c").await;
    assert_eq!(receive(&mut new, 1).await, b"c");
}

#[tokio::test]
async fn a_stranded_connection_stays_dead_and_new_ones_live() {
    let proxy = echo().await;
    let mut old = client(&proxy).await;
    send(&mut old, b"a").await;
    assert_eq!(receive(&mut old, 1).await, b"a");
    proxy.strand();
    send(&mut old, b"b").await;
    proxy.until(|proxy| proxy.swallowed(ToServer) == 1).await;
    proxy.heal();
    send(&mut old, b"c").await;
    proxy.until(|proxy| proxy.swallowed(ToServer) == 2).await;
    let mut new = client(&proxy).await;
    send(&mut new, b"d").await;
    assert_eq!(receive(&mut new, 1).await, b"d");
    let nothing = timeout(Duration::from_millis(50), old.read_u8()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test]
async fn new_connections_can_be_led_elsewhere() {
    let (proxy, other) = (echo().await, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    let mut old = client(&proxy).await;
    send(&mut old, b"a").await;
    assert_eq!(receive(&mut old, 1).await, b"a");
    proxy.redirect(other.local_addr().unwrap());
    let mut new = client(&proxy).await;
    let (mut stranger, _) = timeout(LONG, other.accept()).await.expect("a connection").unwrap();
    stranger.write_all(b"x").await.unwrap();
    assert_eq!(receive(&mut new, 1).await, b"x");
    send(&mut old, b"b").await;
    assert_eq!(receive(&mut old, 1).await, b"b");
}

#[tokio::test]
async fn chunks_end_where_messages_do() {
    let proxy = echo().await;
    let mut client = client(&proxy).await;
    for message in [&b"abc"[..], b"d", b"efghi"] {
        send(&mut client, message).await;
        assert_eq!(receive(&mut client, message.len()).await, message);
    }
    assert_eq!(proxy.chunk_ends(ToServer), [3, 4, 9]);
}
