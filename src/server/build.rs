//! Makes the shared parts of the process from the settings.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::certificates::Certificates;
use crate::Side;
use crate::auth::rsa::RsaKey;
use crate::auth::tls::{self, ClientAuth, LegTls, Pair};
use crate::auth::{Account, AccountStore, Mapped, Secret, UserMap};
use crate::config::{
    Backend, ClientCerts, Config, Credentials, Password, ProxyProtocol, TlsMode, UserEntry,
};
use crate::control::{Control, Views};
use crate::leg::connect::{self, Announce, BackendConfig};
use crate::leg::grants::{GrantReader, service_params};
use crate::migration::{self, Migration, Parts, Sessions, monitor};
use crate::mirror;
use crate::mirror::journal::{Journal, Standing};
use crate::mirror::positions::Positions;
use crate::mirror::reaper::{Connect, Reaper};
use crate::plane::{self, Plane, What};
use crate::route::gate::{GateLimits, Routes};
use crate::route::table::{RouteTable, TableGlob};
use crate::rows::catalog::{CatalogLoader, Wanted};
use crate::rows::service::ServiceAccount;
use crate::rows::shape::Catalog;
use crate::rows::variables::Variables;
use crate::session::login::{ClientCertificates, LoginContext, SeenCapabilities};
use crate::session::registry::Registry;
use crate::session::{Followers, PreparedXa, Said, Shared, Text};
use crate::store::{EmbeddedStore, Store};

/// Makes writes reach the mirror after the active side's commit, so that a
/// test can show what the order test sees then. Never set it.
const MIRROR_AFTER_COMMIT: &str = "LOCKSTEP_TEST_MIRROR_AFTER_COMMIT";

/// What [`super::serve`] runs with.
pub struct Built {
    /// What sessions share.
    pub shared: Arc<Shared>,
    /// Edges and monitor.
    pub migration: Arc<Migration>,
    /// The control port's handlers.
    pub control: Arc<Control>,
    /// Certificates to be watched.
    pub certificates: Certificates,
}

/// Opens the state and puts everything together. Called on the control
/// runtime, which the reaper's tasks stay on.
///
/// # Errors
/// What cannot be opened, for people.
pub fn all(config: &Config) -> Result<Built, String> {
    let store = EmbeddedStore::open(&config.state).map_err(|e| e.to_string())?;
    let instance = store.instance_id().to_owned();
    let table = migration::seed(&config.routes, &store).map_err(|e| e.to_string())?;
    let journal = Arc::new(journal(config, &table)?);
    let routes = Routes::new(table);
    let prepared_xa = PreparedXa::new(&routes);
    let registry = Arc::new(Registry::default());
    let catalog = Arc::new(ArcSwap::from_pointee(Catalog::empty()));
    let poke = Arc::new(Notify::new());
    let accounts = [Side::Source, Side::Target].map(|side| ServiceAccount::of(config, side));
    let loader = CatalogLoader::new(
        catalog.clone(),
        Arc::new(Routed(routes.clone())),
        poke.clone(),
        config.limits.catalog_refresh(),
        accounts.clone(),
    );
    let mut certificates = Certificates::default();
    let context = login(
        config,
        instance.clone(),
        registry.clone(),
        &mut certificates,
    )?;
    let catalog_loader = Arc::new(loader);
    let read_as = |side| {
        let account = context.grant_reader(side).service().clone();
        (context.backend(side).clone(), account)
    };
    let store: Arc<dyn Store> = Arc::new(store);
    let plane = Plane::new(plane::Inner {
        routes: routes.clone(),
        catalog: catalog_loader.clone(),
        pulses: plane::pulses(&accounts, &instance),
        accounts: accounts.clone(),
        backends: [Side::Source, Side::Target].map(read_as),
        journal: journal.clone(),
        instance,
        ddl: Arc::default(),
        replicas: [Side::Source, Side::Target].map(|side| replica(config, side)),
        threads: registry.threads.clone(),
        store: store.clone(),
        settings: plane::Settings {
            copy: config.copy.clone(),
            ..plane::Settings::default()
        },
    });
    let migration = Migration::new(Parts {
        routes: routes.clone(),
        store,
        catalog: catalog_loader,
        sessions: Arc::new(Connected(registry.clone())),
        plane: plane.clone(),
        limits: config.limits,
    });
    let shared = Arc::new(Shared {
        followers: Arc::new(Followed(plane)),
        routes,
        registry: registry.clone(),
        catalog,
        catalog_refresh: poke,
        mirror: mirrored(config, &accounts, journal),
        login: context,
        variables: Variables::new(accounts.clone()),
        prepared_xa,
        gate: GateLimits {
            drain: config.limits.drain(),
            total: config.limits.gate(),
        },
        draining: AtomicBool::new(false),
    });
    Ok(Built {
        control: control(config, &migration, registry, &shared),
        shared,
        migration,
        certificates,
    })
}

/// What a side's replica is called, where it has one.
fn replica(config: &Config, side: Side) -> Option<String> {
    let address = &config.backend(side).replica;
    (!address.is_empty()).then(|| address.clone())
}

fn control(
    config: &Config,
    migration: &Arc<Migration>,
    registry: Arc<Registry>,
    shared: &Shared,
) -> Arc<Control> {
    let views = Shown {
        registry,
        journal: shared.mirror.journal.clone(),
    };
    let addresses = [Side::Source, Side::Target].map(|s| config.backend(s).address.clone());
    let token = config.control.token.clone();
    let control = Control::new(migration.clone(), Arc::new(views), addresses, token);
    control.preflight.set(config);
    control
}

fn journal(config: &Config, table: &RouteTable) -> Result<Journal, String> {
    let routes: Vec<Standing<'_>> = table
        .routes
        .iter()
        .map(|r| Standing {
            route: &r.name,
            active: r.phase.active(),
            mirrored: r.phase.mirrored(),
            stream: r.follow.as_ref().map(|f| &f.stream[..]),
        })
        .collect();
    let opened = Journal::open(&config.state, config.limits.journal_bytes);
    opened
        .and_then(|journal| journal.assign(&routes).map(|()| journal))
        .map_err(|e| format!("the journal in {}: {e}", config.state.display()))
}

fn mirrored(
    config: &Config,
    accounts: &[ServiceAccount; 2],
    journal: Arc<Journal>,
) -> mirror::Shared {
    let [source, target] = accounts;
    let connect = |account: &ServiceAccount| -> Connect {
        let account = account.clone();
        Arc::new(move || {
            let account = account.clone();
            Box::pin(async move { account.connect().await.ok() })
        })
    };
    let connect = [connect(source), connect(target)];
    let mirror_after_commit = std::env::var_os(MIRROR_AFTER_COMMIT).is_some_and(|v| v == "1");
    if mirror_after_commit {
        tracing::error!("{MIRROR_AFTER_COMMIT} is set: this proxy WILL make rows diverge");
    }
    mirror::Shared {
        journal,
        positions: Arc::new(Positions::default()),
        reaper: Reaper::start(connect),
        deadline: config.limits.mirror_deadline(),
        errors_per_minute: u32::try_from(config.limits.mirror_errors_per_min).unwrap_or(u32::MAX),
        mirror_after_commit,
    }
}

fn secret(password: &Password) -> Secret {
    Secret::new(password.reveal().as_bytes().to_vec())
}

fn login(
    config: &Config,
    instance: String,
    registry: Arc<Registry>,
    certificates: &mut Certificates,
) -> Result<LoginContext, String> {
    let [source, target] = &config.backends;
    let backends = [
        backend(Side::Source, source, certificates)?,
        backend(Side::Target, target, certificates)?,
    ];
    let service = |b: &Backend| Account::new(b.user.as_bytes().to_vec(), secret(&b.password));
    let [to_source, to_target] = &backends;
    let grants = [
        GrantReader::new(to_source.clone(), service(source)),
        GrantReader::new(to_target.clone(), service(target)),
    ];
    let mut users = UserMap::new();
    for user in &config.users {
        for (side, mapped) in [Side::Source, Side::Target].into_iter().zip(&user.sides) {
            if let Some(credentials) = mapped {
                let mapped = mapped_user(config, user, side, credentials, certificates)?;
                users.insert(user.name.as_bytes().to_vec(), side, mapped);
            }
        }
    }
    let (client_tls, client_certs) = client_side(config, certificates)?;
    Ok(LoginContext {
        mariadb_bulk: config.mariadb_bulk,
        backends,
        tls: Some(client_tls),
        client_certs,
        proxied_by: config.proxy_protocol_from.clone(),
        accounts: Arc::new(AccountStore::new()),
        users: Arc::new(users),
        rsa: Arc::new(RsaKey::generate().map_err(|e| format!("RSA key: {e}"))?),
        grants,
        seen: SeenCapabilities::default(),
        login_timeout: config.limits.login_timeout(),
        registry,
        instance,
    })
}

/// The certificate for clients, and what is asked of theirs.
fn client_side(
    config: &Config,
    certificates: &mut Certificates,
) -> Result<(Arc<ArcSwap<rustls::ServerConfig>>, ClientCertificates), String> {
    let told = |e| format!("tls: {e}");
    let pair = match Pair::of(&config.tls.cert, &config.tls.key) {
        Some(pair) => pair,
        None => tls::self_signed(&config.state).map_err(told)?,
    };
    let required = config.tls.client_certs == ClientCerts::Required;
    let asked = (!config.tls.ca.is_empty()).then(|| ClientAuth {
        ca: config.tls.ca.clone().into(),
        required,
    });
    let policy = match (&asked, required) {
        (None, _) => ClientCertificates::Ignored,
        (Some(_), false) => ClientCertificates::Optional,
        (Some(_), true) => ClientCertificates::Required,
    };
    let current = certificates.for_clients(pair, asked).map_err(told)?;
    Ok((current, policy))
}

/// One side of a `users:` entry.
fn mapped_user(
    config: &Config,
    user: &UserEntry,
    side: Side,
    credentials: &Credentials,
    certificates: &mut Certificates,
) -> Result<Mapped, String> {
    let name = credentials.user.as_bytes().to_vec();
    let pair = Pair::of(&credentials.cert, &credentials.key);
    let certificate = match pair {
        None => None,
        Some(pair) => leg_tls(config.backend(side), Some(pair))
            .map_err(|e| format!("users ({}, {side}): {e}", user.name))?,
    };
    if let Some(tls) = &certificate {
        certificates.for_legs(format!("users ({}, {side})", user.name), tls);
    }
    Ok(Mapped {
        account: Account::new(name, secret(&credentials.password)),
        certificate,
    })
}

fn tls_mode(backend: &Backend) -> tls::TlsMode {
    match backend.tls {
        TlsMode::Off => tls::TlsMode::Off,
        TlsMode::Preferred => tls::TlsMode::Preferred,
        TlsMode::Required => tls::TlsMode::Required,
        TlsMode::Verify => tls::TlsMode::Verify,
    }
}

fn leg_tls(backend: &Backend, pair: Option<Pair>) -> Result<Option<Arc<LegTls>>, tls::TlsError> {
    let ca = (!backend.ca.is_empty()).then(|| Path::new(&backend.ca));
    LegTls::load(tls_mode(backend), ca, pair)
}

fn backend(
    side: Side,
    backend: &Backend,
    certificates: &mut Certificates,
) -> Result<BackendConfig, String> {
    let pair = Pair::of(&backend.cert, &backend.key);
    let tls_config = leg_tls(backend, pair).map_err(|e| format!("backends.{side}.tls: {e}"))?;
    if let Some(tls) = &tls_config {
        certificates.for_legs(format!("backends.{side}"), tls);
    }
    Ok(BackendConfig {
        side,
        address: backend.address.clone(),
        tls: tls_mode(backend),
        tls_config,
        announce: match backend.proxy_protocol {
            ProxyProtocol::Off => Announce::No,
            ProxyProtocol::V1 => Announce::V1,
            ProxyProtocol::V2 => Announce::V2,
        },
    })
}

/// What the catalog loads: the tables the routes cover at the moment.
struct Routed(Arc<Routes>);

impl Wanted for Routed {
    fn fold(&self) -> bool {
        self.0.peek().fold_names
    }

    fn schema(&self, database: &[u8]) -> bool {
        let table = self.0.peek();
        let any_table = |glob: &TableGlob| TableGlob {
            database: glob.database.clone(),
            table: b"*".to_vec(),
        };
        table
            .routes
            .iter()
            .flat_map(|r| &r.tables)
            .any(|g| any_table(g).matches(database, b"", table.fold_names))
    }

    fn table(&self, database: &[u8], table: &[u8]) -> bool {
        self.0.peek().route_of(database, table).is_some()
    }
}

struct Followed(Arc<Plane>);

impl Followers for Followed {
    fn caught_up<'a>(
        &'a self,
        route: &'a str,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(self.0.before_ddl(route, limit))
    }

    fn ddl(&self, routes: &[String], all: &[Text<'_>]) -> Said {
        let all = all.iter().map(|(sql, facts, db)| What::of(sql, facts, *db));
        let all: Vec<What> = all.collect();
        let under_way = self.0.ddl(routes, &all);
        Box::new(move || under_way.done())
    }
}

struct Connected(Arc<Registry>);

impl Sessions for Connected {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn without_other_leg(&self) -> usize {
        self.0.without_other_leg()
    }
}

struct Shown {
    registry: Arc<Registry>,
    journal: Arc<Journal>,
}

impl Views for Shown {
    fn sessions(&self) -> serde_json::Value {
        serde_json::to_value(self.registry.list()).unwrap_or_default()
    }

    fn journal(&self) -> serde_json::Value {
        serde_json::to_value(self.journal.summary()).unwrap_or_default()
    }
}

/// Where the monitor's samples go.
pub struct Sampled {
    shared: Arc<Shared>,
    connect_timeout: Duration,
}

impl Sampled {
    /// Into what the sessions share.
    pub fn new(shared: &Arc<Shared>, config: &Config) -> Sampled {
        Sampled {
            shared: shared.clone(),
            connect_timeout: config.limits.connect_timeout(),
        }
    }
}

impl monitor::Hooks for Sampled {
    fn position(&self, side: Side, position: String) {
        self.shared.mirror.positions.set(side, position);
    }

    fn were_taken(&self, side: Side) -> bool {
        self.shared.mirror.positions.were_taken(side)
    }

    /// Reads the greeting for the capabilities clients may be offered. Logs in
    /// too: a server counts connections that break off before.
    fn came_up(&self, side: Side) {
        let (shared, limit) = (self.shared.clone(), self.connect_timeout);
        tokio::spawn(async move {
            let opened = match connect::open(shared.login.backend(side), limit, None).await {
                Ok(opened) => opened,
                Err(e) => {
                    tracing::warn!("the {side}'s capabilities are not known: {e}");
                    return;
                }
            };
            shared.login.seen.note(side, opened.info().capabilities);
            let account = shared.login.grant_reader(side).service();
            let _ = connect::login(opened, account, &service_params()).await;
        });
    }
}
