//! The first connection, and how it is made again.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::rustls::crypto::{CryptoProvider, aws_lc_rs};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{NatsError, NatsOptions};

/// How long the first connection may take, over all servers and attempts.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// How long one attempt may take.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Bounds of the pause between attempts to reconnect, in milliseconds.
const SHORTEST_PAUSE_MS: u64 = 50;
const LONGEST_PAUSE_MS: u64 = 2_000;
/// A connection that doesn't answer is given up after the third ping.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Messages that may wait for the connection.
const OUTGOING: usize = 4_096;
/// Messages that may wait for a subscription's reader; further ones are dropped, and reported.
const INCOMING: usize = 16_384;

/// Connects; what is given back is told of each change of the connection.
pub(super) async fn connect(options: &NatsOptions) -> Result<(Client, Arc<Notify>), NatsError> {
    let addresses = addresses(options)?;
    if CryptoProvider::get_default().is_none() {
        // Fails only where somebody else was faster, which is as good.
        let _ = aws_lc_rs::default_provider().install_default();
    }
    let wake = Arc::new(Notify::new());
    let once = Arc::new(AtomicBool::new(false));
    let built = build(options, Arc::clone(&wake), Arc::clone(&once)).await?;
    let (built, addresses) = sign_in(built, addresses)?;
    let until = Instant::now() + FIRST_WITHIN;
    loop {
        let attempt = built.clone().connect(&addresses[..]);
        let error = match tokio::time::timeout_at(until, attempt).await {
            Ok(Ok(client)) => {
                once.store(true, Ordering::Relaxed);
                return Ok((client, wake));
            }
            Ok(Err(error)) => error,
            Err(_) => return Err(NatsError::Unavailable("no connection in time".into())),
        };
        let hopeless = matches!(
            error.kind(),
            ConnectErrorKind::Authentication
                | ConnectErrorKind::AuthorizationViolation
                | ConnectErrorKind::ServerParse
                | ConnectErrorKind::Tls
        );
        if hopeless || Instant::now() + FIRST_PAUSE >= until {
            return Err(NatsError::Unavailable(error.to_string()));
        }
        tokio::time::sleep(FIRST_PAUSE).await;
    }
}

/// The servers' addresses. What can't be read isn't repeated: it may hold a password.
fn addresses(options: &NatsOptions) -> Result<Vec<ServerAddr>, NatsError> {
    let bad_prefix = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if options.prefix.is_empty() || options.prefix.contains(bad_prefix) {
        let wanted = "use ASCII letters, digits, - and _";
        return Err(NatsError::Setting(format!("prefix {:?}: {wanted}", options.prefix)));
    }
    let urls = options.url.split(',').map(str::trim).filter(|url| !url.is_empty());
    let addresses: Result<Vec<ServerAddr>, _> = urls.map(str::parse).collect();
    match addresses {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        _ => Err(NatsError::Setting("the URL; write it like nats://host:4222".into())),
    }
}

/// Takes user and password, or a token, from the first address that has some. The client library
/// leaves them there and may log them, so that they are taken off.
fn sign_in(
    options: ConnectOptions,
    addresses: Vec<ServerAddr>,
) -> Result<(ConnectOptions, Vec<ServerAddr>), NatsError> {
    let named = addresses.iter().find_map(|address| {
        let password = address.password().map(decoded);
        Some((decoded(address.username()?), password))
    });
    let options = match named {
        None => options,
        Some((token, None)) => options.token(token),
        Some((user, Some(password))) => options.user_and_password(user, password),
    };
    let bare = addresses.into_iter().map(|address| {
        let mut url = address.into_inner();
        // Fails only for a URL without a host, which isn't taken below either.
        let _ = (url.set_username(""), url.set_password(None));
        ServerAddr::from_url(url).map_err(|error| NatsError::Setting(error.to_string()))
    });
    Ok((options, bare.collect::<Result<_, _>>()?))
}

/// Undoes what URLs do to special characters.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after.get(..2).and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn build(
    options: &NatsOptions,
    wake: Arc<Notify>,
    once: Arc<AtomicBool>,
) -> Result<ConnectOptions, NatsError> {
    let mut built = ConnectOptions::new()
        .name(&options.name)
        .custom_inbox_prefix(format!("{}.inbox", options.prefix))
        .connection_timeout(ATTEMPT_WITHIN)
        .request_timeout(Some(FIRST_WITHIN))
        .ping_interval(PING_EVERY)
        .max_reconnects(None)
        .reconnect_delay_callback(move |attempts| match once.load(Ordering::Relaxed) {
            true => pause(attempts),
            false => Duration::ZERO,
        })
        .client_capacity(OUTGOING)
        .subscription_capacity(INCOMING)
        .event_callback(move |event| {
            report(&event);
            wake.notify_one();
            std::future::ready(())
        });
    if let Some(path) = &options.credentials {
        let unusable = |error: std::io::Error| {
            NatsError::Setting(format!("credentials file {}: {error}", path.display()))
        };
        let text = tokio::fs::read_to_string(path).await.map_err(unusable)?;
        built = built.credentials(&text).map_err(unusable)?;
    }
    if let Some(path) = &options.ca_file {
        tokio::fs::metadata(path)
            .await
            .map_err(|error| NatsError::Setting(format!("CA file {}: {error}", path.display())))?;
        built = built.add_root_certificates(path.clone());
    }
    Ok(built)
}

/// Longer and longer, and not the same in every process. The first one is long enough for those who
/// subscribed to notice: what is subscribed anew before the connection is there loses nothing.
fn pause(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.min(8)).unwrap_or(8);
    let longest = (SHORTEST_PAUSE_MS * 2_u64.pow(doublings)).min(LONGEST_PAUSE_MS);
    let spread = RandomState::new().hash_one(attempts) % (longest / 2);
    Duration::from_millis(longest - spread)
}

/// What isn't a change of the connection.
fn report(event: &Event) {
    match event {
        Event::SlowConsumer(_) => {
            metrics::counter!("nats_messages_dropped_total").increment(1);
            tracing::debug!("a message from nats was dropped: its reader is too slow");
        }
        Event::ServerError(error) => tracing::warn!(%error, "nats reports an error"),
        Event::LameDuckMode => tracing::info!("the nats server is going to stop"),
        Event::Connected
        | Event::Disconnected
        | Event::Draining
        | Event::Closed
        | Event::ClientError(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound() {
        let millis = |attempts| pause(attempts).as_millis();
        assert!((50..=100).contains(&millis(1)));
        assert!((100..=200).contains(&millis(2)));
        for attempts in 6..100 {
            assert!((1_000..=2_000).contains(&millis(attempts)), "{attempts}");
        }
        assert!(pause(usize::MAX) <= Duration::from_secs(2));
    }

    #[test]
    fn what_a_url_escapes_is_read() {
        for (text, meant) in [("plain", "plain"), ("a%40b%2fc", "a@b/c"), ("100%", "100%")] {
            assert_eq!(decoded(text), meant);
        }
    }

    #[test]
    fn addresses_are_given_on_without_secrets() {
        let addresses = addresses(&NatsOptions::new("nats://me:secret@host:1,tls://t@host"));
        let (_, bare) = sign_in(ConnectOptions::new(), addresses.expect("they can be read"))
            .expect("they can be read");
        let text: Vec<&str> = bare.iter().map(ServerAddr::as_url_str).collect();
        assert_eq!(text, ["nats://host:1", "tls://host"]);
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_not_repeated() {
        let error = addresses(&NatsOptions::new("http://me:secret@host")).expect_err("no nats");
        assert!(!error.to_string().contains("secret"), "{error}");
        assert!(!format!("{:?}", NatsOptions::new("nats://me:secret@host")).contains("secret"));
        for prefix in ["", "a.b", "a b", "a*", "ä"] {
            let options = NatsOptions { prefix: prefix.into(), ..NatsOptions::new("nats://host") };
            assert!(matches!(addresses(&options), Err(NatsError::Setting(_))), "{prefix:?}");
        }
        assert_eq!(addresses(&NatsOptions::new("a, nats://b:1,tls://c")).map(|a| a.len()), Ok(3));
    }
}
