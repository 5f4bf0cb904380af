//! Redis URLs: one server, a set of sentinels, or a cluster. Errors never show the URL.

use std::net::IpAddr;

use redis::{ConnectionAddr, RedisConnectionInfo};
use url::Url;

use super::RedisSettings;
use crate::StorageError;

/// A parsed Redis URL.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Single(Node),
    Sentinel { nodes: Vec<Node>, service: String },
    Cluster(Vec<Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

/// Error of a URL that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RedisUrlError(&'static str);

impl From<RedisUrlError> for StorageError {
    fn from(RedisUrlError(problem): RedisUrlError) -> Self {
        Self::Config(format!("redis.url {problem}"))
    }
}

impl Address {
    pub(super) fn parse(settings: &RedisSettings) -> Result<Self, RedisUrlError> {
        let text = settings.url.expose();
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(RedisUrlError("has no scheme"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, hosts) = authority
            .rsplit_once('@')
            .map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let default_port = if scheme.ends_with("sentinel") {
            26_379
        } else {
            6_379
        };
        let nodes = hosts
            .split(',')
            .map(|host| node(host, default_port))
            .collect::<Result<Vec<_>, _>>()?;
        let tls = scheme.starts_with("rediss");
        if !tls && !settings.allow_cleartext && !nodes.iter().all(Node::is_loopback) {
            return Err(RedisUrlError(
                "must use rediss beyond loopback: redis sends its password and masked recipients in clear; \
                 set redis.allow_cleartext to allow that in a network you trust",
            ));
        }
        let path: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let (kind, database) = match (
            scheme
                .trim_start_matches("rediss")
                .trim_start_matches("redis"),
            path.as_slice(),
        ) {
            ("", path) if nodes.len() == 1 && path.len() <= 1 => {
                let node = nodes
                    .into_iter()
                    .next()
                    .ok_or(RedisUrlError("names no host"))?;
                (Kind::Single(node), path.first().copied())
            }
            ("+sentinel", [service, database @ ..]) if database.len() <= 1 => (
                Kind::Sentinel {
                    nodes,
                    service: (*service).to_owned(),
                },
                database.first().copied(),
            ),
            ("+cluster", []) => (Kind::Cluster(nodes), None),
            _ => {
                return Err(RedisUrlError(
                    "must be redis://, redis+sentinel://…/service or redis+cluster://",
                ));
            }
        };
        let (user, inline_password) = credentials(userinfo)?;
        Ok(Self {
            kind,
            tls,
            user,
            password: settings
                .password
                .as_ref()
                .map(|password| password.expose().to_owned())
                .or(inline_password),
            database: database
                .map_or(Ok(0), str::parse)
                .map_err(|_| RedisUrlError("has a database that is not a number"))?,
        })
    }

    pub(super) fn login(&self) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default().set_db(self.database);
        if let Some(user) = &self.user {
            info = info.set_username(user);
        }
        if let Some(password) = &self.password {
            info = info.set_password(password);
        }
        info
    }
}

impl Node {
    /// Whether the node is this machine. Nodes that sentinels or a cluster report later are not
    /// checked.
    fn is_loopback(&self) -> bool {
        let address = self.host.parse();
        self.host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
    }

    pub(super) fn address(&self, tls: bool) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        if tls {
            ConnectionAddr::TcpTls {
                host,
                port,
                insecure: false,
                tls_params: None,
            }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }
}

fn node(text: &str, default_port: u16) -> Result<Node, RedisUrlError> {
    let url = Url::parse(&format!("redis://{text}"))
        .map_err(|_| RedisUrlError("has a host that cannot be read"))?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or(RedisUrlError("names no host"))?;
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    Ok(Node {
        host,
        port: url.port().unwrap_or(default_port),
    })
}

/// Parses user and password, percent-decoded.
fn credentials(userinfo: Option<&str>) -> Result<(Option<String>, Option<String>), RedisUrlError> {
    let Some(userinfo) = userinfo else {
        return Ok((None, None));
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decode = |text: &str| -> Result<Option<String>, RedisUrlError> {
        // The query parser decodes the text after `=`, but turns `+` into a space; escape it.
        let query = format!("x={}", text.replace('+', "%2B"));
        let url = Url::parse(&format!("redis://h/?{query}"))
            .map_err(|_| RedisUrlError("has a user that cannot be read"))?;
        Ok(url
            .query_pairs()
            .next()
            .map(|(_, value)| value.into_owned())
            .filter(|value| !value.is_empty()))
    };
    Ok((decode(user)?, decode(password)?))
}

#[cfg(test)]
mod tests {
    use watchword_core::SecretString;

    use super::*;

    fn parse(url: &str) -> Result<Address, RedisUrlError> {
        let settings = RedisSettings::new(SecretString::new(url.to_owned()));
        Address::parse(&RedisSettings {
            allow_cleartext: true,
            ..settings
        })
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        let node = |host: &str, port| Node {
            host: host.to_owned(),
            port,
        };
        let single = parse("rediss://bob:p%40ss+1@db.example:6380/3").unwrap();
        assert_eq!(single.kind, Kind::Single(node("db.example", 6380)));
        assert_eq!((single.tls, single.database), (true, 3));
        assert_eq!(
            (single.user.as_deref(), single.password.as_deref()),
            (Some("bob"), Some("p@ss+1"))
        );
        let sentinel = parse("redis+sentinel://a,b:2/main/1").unwrap();
        let nodes = vec![node("a", 26_379), node("b", 2)];
        assert_eq!(
            sentinel.kind,
            Kind::Sentinel {
                nodes,
                service: "main".to_owned()
            }
        );
        let cluster = parse("redis+cluster://[::1]:7000,b").unwrap();
        assert_eq!(
            cluster.kind,
            Kind::Cluster(vec![node("::1", 7000), node("b", 6379)])
        );
    }

    #[test]
    fn wrong_urls_are_refused_without_being_shown() {
        for url in [
            "",
            "hunter2",
            "http://hunter2",
            "redis://:hunter2@h/x",
            "redis+sentinel://h",
            "redis+cluster://h/2/hunter2",
            "redis://a,b",
        ] {
            let Err(error) = parse(url) else {
                panic!("{url}")
            };
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn cleartext_stays_on_this_machine_unless_it_is_allowed() {
        for (url, is_private) in [
            ("redis://127.0.0.1:6379/0", true),
            ("redis://[::1]", true),
            ("redis://localhost", true),
            ("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main", true),
            ("rediss://db.example", true),
            ("rediss+cluster://n1,n2", true),
            ("redis://redis:6379/0", false),
            ("redis://localhost.example", false),
            ("redis://10.0.0.1", false),
            ("redis+sentinel://127.0.0.1,s2/main", false),
            ("redis+cluster://127.0.0.1,n2", false),
        ] {
            let settings = RedisSettings::new(SecretString::new(url.to_owned()));
            assert_eq!(Address::parse(&settings).is_ok(), is_private, "{url}");
            assert!(parse(url).is_ok(), "{url}");
        }
    }
}
