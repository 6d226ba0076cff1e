use super::*;
use crate::auth::{Account, Secret};
use crate::config::Config;
use crate::leg::connect::BackendConfig;
use crate::mirror::journal::Journal;
use crate::route::table::RouteTable;
use crate::rows::catalog::Wanted;
use crate::rows::service::ServiceAccount;
use crate::rows::shape::Catalog;
use crate::store::StoreError;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Default)]
struct Kept {
    routes: Mutex<Vec<StoredRoute>>,
    broken: std::sync::atomic::AtomicBool,
}

impl Store for Arc<Kept> {
    fn instance_id(&self) -> &str {
        "test"
    }
    fn load_routes(&self) -> Result<Vec<StoredRoute>, StoreError> {
        Ok(self.routes.lock().clone())
    }
    fn save_route(&self, route: &StoredRoute) -> Result<(), StoreError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(StoreError::Failed("full".to_owned()));
        }
        self.remove_route(&route.name)?;
        self.routes.lock().push(route.clone());
        Ok(())
    }
    fn load_notes(&self, _: &str) -> Result<Vec<(String, String)>, StoreError> {
        Ok(Vec::new())
    }
    fn save_notes(&self, _: &str, _: &[crate::store::Note]) -> Result<(), StoreError> {
        Ok(())
    }
    fn remove_route(&self, name: &str) -> Result<(), StoreError> {
        self.routes.lock().retain(|r| r.name != name);
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

struct Nothing;

impl Wanted for Nothing {
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

fn route(name: &str, table: &str) -> RouteConfig {
    RouteConfig {
        name: name.to_owned(),
        tables: vec![table.to_owned()],
        ack: Default::default(),
        deferred: Default::default(),
        ddl: Default::default(),
        reads_by: Default::default(),
    }
}

/// A journal of its own.
fn journal() -> Journal {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("lockstep-migration-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    Journal::open(&folder, 1 << 20).unwrap()
}

/// A migration whose backends nobody answers for.
fn migration(kept: &Arc<Kept>, table: RouteTable) -> Arc<Migration> {
    let mut config = Config::default();
    // A port nothing listens on: refused at once.
    config.backends[0].address = "127.0.0.1:1".to_owned();
    config.backends[1].address = "127.0.0.1:1".to_owned();
    let accounts = [Side::Source, Side::Target].map(|s| ServiceAccount::of(&config, s));
    let catalog = CatalogLoader::new(
        Arc::new(ArcSwap::from_pointee(Catalog::empty())),
        Arc::new(Nothing),
        Arc::default(),
        Duration::from_secs(1),
        accounts.clone(),
    );
    let (routes, catalog) = (Routes::new(table), Arc::new(catalog));
    let backends = [Side::Source, Side::Target].map(|side| {
        let backend = BackendConfig {
            side,
            address: "127.0.0.1:1".to_owned(),
            tls: Default::default(),
            tls_config: None,
            announce: Default::default(),
        };
        let nobody = Account::new(Vec::new(), Secret::new(Vec::new()));
        (backend, nobody)
    });
    let plane = Plane::new(crate::plane::Inner {
        routes: routes.clone(),
        catalog: catalog.clone(),
        pulses: crate::plane::pulses(&accounts, "test"),
        accounts: accounts.clone(),
        backends,
        journal: Arc::new(journal()),
        instance: "test".to_owned(),
        ddl: Arc::default(),
        replicas: Default::default(),
        threads: Default::default(),
        store: Arc::new(kept.clone()),
        settings: Default::default(),
    });
    Migration::new(Parts {
        routes,
        store: Arc::new(kept.clone()),
        catalog,
        plane,
        sessions: Arc::new(Nobody),
        limits: config.limits,
    })
}

fn started(kept: &Arc<Kept>, configured: &[RouteConfig]) -> Arc<Migration> {
    migration(kept, seed(configured, kept).unwrap())
}

const FORCE: Wish = Wish {
    to: None,
    force: true,
    kill: false,
    dry_run: false,
};

fn to(phase: Phase) -> Wish {
    Wish {
        to: Some(phase),
        ..FORCE
    }
}

#[tokio::test]
async fn a_route_walks_and_a_restart_finds_it() {
    let kept = Arc::new(Kept::default());
    let m = started(&kept, &[route("shop", "shop.*")]);
    let refused = m.go(
        "shop",
        Direction::Forward,
        Wish {
            force: false,
            ..to(Phase::SourceFirst)
        },
    );
    assert!(matches!(refused.await, Err(Refusal::Refused { .. })));
    let dry = Wish {
        dry_run: true,
        ..to(Phase::SourceFirst)
    };
    let looked = m.go("shop", Direction::Forward, dry).await.unwrap();
    assert_eq!(
        (looked.phase, looked.steps[0].epoch),
        (Phase::SourceOnly, None)
    );
    let walked = m
        .go("shop", Direction::Forward, to(Phase::TargetFirst))
        .await
        .unwrap();
    assert_eq!(
        (walked.phase, walked.epoch, walked.steps.len()),
        (Phase::TargetFirst, 2, 2)
    );
    assert!(
        walked.steps[0]
            .overridden
            .contains(&"copy_complete".to_owned())
    );
    m.reads("shop", 30, Some(ReadsBy::Statement)).await.unwrap();
    assert!(matches!(
        m.reads("shop", 101, None).await,
        Err(Refusal::Bad(_))
    ));

    // As after kill -9.
    let again = started(&kept, &[route("shop", "shop.*")]);
    let found = again.routes().load().routes[0].clone();
    assert_eq!(
        (found.phase, found.epoch, found.reads_percent),
        (Phase::TargetFirst, 2, 30)
    );
    assert_eq!(found.reads_by, ReadsBy::Statement);
    // Other tables for a moved route: both versions shown.
    let error = seed(&[route("shop", "mall.*")], &kept)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("shop.*") && error.contains("mall.*"),
        "{error}"
    );
    // What the store has and the file has not is kept, and may not overlap.
    assert_eq!(seed(&[], &kept).unwrap().routes.len(), 1);
    assert!(matches!(
        seed(&[route("other", "shop.orders")], &kept),
        Err(SeedError::Invalid(_))
    ));
}

#[tokio::test]
async fn what_cannot_be_stored_does_not_happen() {
    let kept = Arc::new(Kept::default());
    let m = started(&kept, &[route("shop", "shop.*")]);
    kept.broken.store(true, Ordering::Relaxed);
    let result = m
        .go("shop", Direction::Forward, to(Phase::SourceFirst))
        .await;
    assert!(matches!(result, Err(Refusal::Failed(_))));
    assert!(m.put(&route("b", "b.*")).await.is_err());
    let table = m.routes().load();
    assert_eq!(
        (table.routes.len(), table.routes[0].phase),
        (1, Phase::SourceOnly)
    );
}

#[tokio::test]
async fn routes_come_change_and_go() {
    let kept = Arc::new(Kept::default());
    let m = started(&kept, &[route("shop", "shop.*")]);
    m.put(&route("b", "b.*")).await.unwrap();
    assert!(matches!(
        m.put(&route("c", "b.x")).await,
        Err(Refusal::Bad(_))
    ));
    m.put(&route("b", "d.*")).await.unwrap();
    m.go("b", Direction::Forward, to(Phase::SourceFirst))
        .await
        .unwrap();
    assert!(m.put(&route("b", "e.*")).await.is_err());
    assert!(m.delete("b").await.is_err());
    // `shop` is in the middle: its index must not pass to `b`.
    assert!(m.delete("shop").await.is_err());
    let back = to(Phase::SourceOnly);
    m.go("b", Direction::Back, back).await.unwrap();
    m.delete("shop").await.unwrap();
    assert!(matches!(
        m.delete("shop").await,
        Err(Refusal::NoSuchRoute(_))
    ));
    assert_eq!(kept.routes.lock().len(), 1);
    assert!(matches!(
        m.reads("b", 10, None).await,
        Err(Refusal::Refused { .. })
    ));
}
