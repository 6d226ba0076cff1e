//! The control port's handlers, called in this process: any request gets an
//! answer, and refusals are JSON.
//!
//! Input: `METHOD /path`, header lines, an empty line, the body.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use lockstep::Side;
use lockstep::auth::{Account, Secret};
use lockstep::config::{Config, Password};
use lockstep::control::{Control, Views, router};
use lockstep::leg::connect::BackendConfig;
use lockstep::migration::{Migration, Parts, Sessions};
use lockstep::mirror::journal::Journal;
use lockstep::plane::{self, Plane};
use lockstep::route::gate::Routes;
use lockstep::route::table::RouteTable;
use lockstep::rows::catalog::{CatalogLoader, Wanted};
use lockstep::rows::service::ServiceAccount;
use lockstep::rows::shape::Catalog;
use lockstep::store::{Store, StoreError, StoredRoute};
use parking_lot::Mutex;
use tower::ServiceExt;

/// A request that waits (for an edge's conditions, for events) is left.
const PATIENCE: Duration = Duration::from_millis(50);

/// Bytes of an answer that are looked at.
const ANSWER_MAX: usize = 1 << 20;

/// Requests after which the routes are made anew, so that what one input left
/// behind does not decide about all later ones.
const REQUESTS: u32 = 200;

#[derive(Default)]
struct Kept(Mutex<Vec<StoredRoute>>);

impl Store for Kept {
    fn instance_id(&self) -> &str {
        "fuzz"
    }
    fn load_routes(&self) -> Result<Vec<StoredRoute>, StoreError> {
        Ok(self.0.lock().clone())
    }
    fn save_route(&self, route: &StoredRoute) -> Result<(), StoreError> {
        self.remove_route(&route.name)?;
        self.0.lock().push(route.clone());
        Ok(())
    }
    fn load_notes(&self, _: &str) -> Result<Vec<(String, String)>, StoreError> {
        Ok(Vec::new())
    }
    fn save_notes(&self, _: &str, _: &[lockstep::store::Note]) -> Result<(), StoreError> {
        Ok(())
    }
    fn remove_route(&self, name: &str) -> Result<(), StoreError> {
        self.0.lock().retain(|r| r.name != name);
        Ok(())
    }
}

struct Nobody;

impl Sessions for Nobody {
    fn count(&self) -> usize {
        0
    }
    fn without_other_leg(&self) -> usize {
        0
    }
}

impl Views for Nobody {
    fn sessions(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    fn journal(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

impl Wanted for Nobody {
    fn fold(&self) -> bool {
        false
    }
    fn schema(&self, _: &[u8]) -> bool {
        false
    }
    fn table(&self, _: &[u8], _: &[u8]) -> bool {
        false
    }
}

/// Nothing is written to it.
fn journal() -> Journal {
    let name = format!("lockstep-fuzz-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    Journal::open(&folder, 1 << 20).expect("a journal")
}

/// The handlers over backends that nobody answers for.
fn handlers() -> Router {
    let mut config = Config::default();
    for backend in &mut config.backends {
        backend.address = "127.0.0.1:1".to_owned();
    }
    let accounts = [Side::Source, Side::Target].map(|s| ServiceAccount::of(&config, s));
    let catalog = CatalogLoader::new(
        Arc::new(ArcSwap::from_pointee(Catalog::empty())),
        Arc::new(Nobody),
        Arc::default(),
        Duration::from_secs(1),
        accounts.clone(),
    );
    let (routes, catalog) = (Routes::new(RouteTable::default()), Arc::new(catalog));
    let plane = Plane::new(plane::Inner {
        routes: routes.clone(),
        catalog: catalog.clone(),
        backends: accounts.clone().map(|account| {
            let backend = BackendConfig {
                side: account.side,
                address: account.address,
                tls: Default::default(),
                tls_config: None,
                announce: Default::default(),
            };
            (backend, Account::new(Vec::new(), Secret::new(Vec::new())))
        }),
        pulses: plane::pulses(&accounts, "fuzz"),
        accounts,
        journal: Arc::new(journal()),
        instance: "fuzz".to_owned(),
        ddl: Default::default(),
        replicas: Default::default(),
        threads: Default::default(),
        store: Arc::new(Kept::default()),
        settings: Default::default(),
    });
    let migration = Migration::new(Parts {
        routes,
        store: Arc::new(Kept::default()),
        catalog,
        plane,
        sessions: Arc::new(Nobody),
        limits: config.limits,
    });
    let addresses = config.backends.map(|b| b.address);
    let token = Password::new(String::new());
    router(Control::new(migration, Arc::new(Nobody), addresses, token))
}

struct Served {
    runtime: tokio::runtime::Runtime,
    router: Router,
    left: u32,
}

thread_local! {
    static SERVED: RefCell<Option<Served>> = const { RefCell::new(None) };
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Some(request) = request(data) else { return };
    // Probes are answered in words.
    let words = matches!(request.uri().path(), "/healthz" | "/readyz");
    SERVED.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|s| s.left == 0) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let router = runtime.block_on(async { handlers() });
            *slot = Some(Served {
                runtime,
                router,
                left: REQUESTS,
            });
        }
        let served = slot.as_mut().expect("made above");
        served.left -= 1;
        let answer = async {
            let answer = served.router.clone().oneshot(request);
            let Ok(answer) = tokio::time::timeout(PATIENCE, answer).await else {
                return;
            };
            let answer = answer.expect("handlers do not fail");
            let status = answer.status();
            assert!(status.as_u16() != 500, "a handler failed");
            let body = to_bytes(answer.into_body(), ANSWER_MAX);
            let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
                return;
            };
            if status.is_client_error() && !words {
                let json = serde_json::from_slice::<serde_json::Value>(&body);
                assert!(json.is_ok(), "a refusal is no JSON: {status}");
            }
        };
        served.runtime.block_on(answer);
    });
}

fn request(data: &[u8]) -> Option<Request<Body>> {
    let split = data.windows(2).position(|w| w == b"\n\n");
    let (head, body) = match split {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[][..]),
    };
    let mut lines = std::str::from_utf8(head).ok()?.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = line.split_once(':')?;
        request = request.header(name.trim(), value.trim());
    }
    request.body(Body::from(body.to_vec())).ok()
}
