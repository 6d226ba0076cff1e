//! One client's life: login, the command loop, the end.
//!
//! One task owns the client's socket and both legs. [`login`] opens the home
//! leg; [`Session::serve`] reads a command, [`command`] and [`statement`]
//! decide by facts and plan, [`relay`] carries the answer; mirrored writes go
//! through `mirror`. The session holds its routes at the gate from the first
//! statement that may write until the transaction has ended on both legs.

mod aside;
pub mod auth_relay;
mod bulk;
pub mod change_user;
mod client;
mod command;
mod ddl;
mod diagnostics;
mod execute;
mod kill;
mod large;
mod learn;
mod legs;
pub mod login;
mod long_data;
mod mirror_read;
mod misorder;
mod modes;
mod named;
mod pins;
mod plain_read;
mod prepared;
mod prepared_xa;
mod proof;
pub mod registry;
mod relay;
mod sandbox;
mod second;
mod state;
mod statement;
mod sync;
mod trackers;
mod transaction;
mod under;
mod unmirrored;
mod values;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::Side;
use crate::leg::buffer::Buffer;
use crate::leg::connect::Visitor;
use crate::leg::{Leg, Lost};
use crate::mirror::debts::Debts;
use crate::mirror::timer::Timer;
use crate::mirror::write::Diagnostics;
use crate::mirror::{self, Part};
use crate::route::gate::{GateLimits, Routes, Slot};
use crate::route::plan::TemporaryTable;
use crate::route::table::RouteMask;
use crate::rows::shape::Catalog;
use crate::rows::variables::Variables;
use crate::sql::{Facts, ServerKind};
use crate::telemetry;
use crate::wire::Status;
use crate::wire::frame::HEADER_LEN;
use client::{Client, Woken};
use login::{LoggedIn, LoginContext, LoginEnd};
use prepared::Prepared;
pub use prepared_xa::PreparedXa;
use registry::{Entry, Registry};
use state::State;
use under::Under;
use unmirrored::Pending;
use values::Values;

/// How long a session that ends waits for the server to be done with what it
/// was executing, before it is killed there.
const END_LIMIT: Duration = Duration::from_secs(30);

/// For telling the client that its connection ends: over TLS that is a record
/// of its own, and a client that does not read must not hold us up.
const GOODBYE_LIMIT: Duration = Duration::from_millis(50);

/// Those who bring what one side has to the other, as DDL needs them.
pub trait Followers: Send + Sync {
    /// Waits until the rows that were written before now are on both sides of a
    /// route. False: not within `limit`.
    fn caught_up<'a>(
        &'a self,
        route: &'a str,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>>;

    /// Statements, each with its default schema, that are about to be run on
    /// both sides of these routes. Gives a word to be said once they were and
    /// the catalog is read anew; dropped unsaid, that is not known.
    fn ddl(&self, routes: &[String], all: &[Text<'_>]) -> Said;
}

/// A statement, what it does, and its default schema.
pub type Text<'a> = (&'a [u8], &'a Facts, Option<&'a [u8]>);

/// See [`Followers::ddl`].
pub type Said = Box<dyn FnOnce() + Send>;

/// What all sessions share.
pub struct Shared {
    /// The routes' followers.
    pub followers: Arc<dyn Followers>,
    /// The routing table and its gate.
    pub routes: Arc<Routes>,
    /// All sessions.
    pub registry: Arc<Registry>,
    /// Table shapes.
    pub catalog: Arc<ArcSwap<Catalog>>,
    /// Poked after DDL.
    pub catalog_refresh: Arc<Notify>,
    /// What mirrored writes need.
    pub mirror: mirror::Shared,
    /// What logins need.
    pub login: LoginContext,
    /// What the service accounts know of sessions' variables.
    pub variables: Variables,
    /// XA transactions that wait for their second phase.
    pub prepared_xa: PreparedXa,
    /// Bounds of the gate, for DDL.
    pub gate: GateLimits,
    /// Whether the process is going down: sessions end at a safe point.
    pub draining: AtomicBool,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// COM_QUIT.
    #[error("client: quit")]
    Quit,
    /// The client closed its connection.
    #[error("client: gone")]
    ClientGone,
    /// The client's connection broke.
    #[error("client: {0}")]
    Client(std::io::Error),
    /// Bytes that are not the protocol.
    #[error("client: {0}")]
    Protocol(&'static str),
    /// A command whose sequence id is not 0.
    #[error("client: a packet out of order")]
    OutOfOrder,
    /// The leg whose answer counts is gone.
    #[error(transparent)]
    Leg(#[from] Lost),
    /// The other leg could not be opened, and it is the active one now.
    #[error("{side}: no leg: {what}")]
    NoLeg {
        /// The side.
        side: Side,
        /// Why.
        what: String,
    },
    /// The client closed its connection while its read was running.
    #[error("client: gone while its read was running")]
    Abandoned,
    /// An operator, or another session's KILL, ended it.
    #[error("proxy: killed")]
    Killed,
    /// COM_CHANGE_USER broke off.
    #[error(transparent)]
    Login(#[from] LoginEnd),
}

impl End {
    fn client(e: std::io::Error) -> End {
        End::Client(e)
    }

    /// The side and kind, as metric labels.
    fn labels(&self) -> Option<(&'static str, &'static str)> {
        match self {
            End::Quit | End::ClientGone | End::Abandoned | End::Killed => None,
            End::Client(_) => Some(("client", "io")),
            End::Protocol(_) | End::OutOfOrder => Some(("client", "protocol")),
            End::Leg(lost) => Some((lost.side.as_str(), "lost")),
            End::NoLeg { side, .. } => Some((side.as_str(), "no_leg")),
            End::Login(_) => Some(("client", "login")),
        }
    }
}

/// The client's open transaction.
#[derive(Default)]
struct Transaction {
    /// The leg whose status flags the client sees.
    lead: Option<Side>,
    /// Savepoints as written, in order.
    savepoints: Vec<Vec<u8>>,
    /// The rest is deferred.
    poisoned: bool,
    /// A statement that named a table has run in it.
    touched: bool,
    /// The route its mirrored writes belong to.
    route: Option<usize>,
    /// The active side of its first routed statement, and that side's last
    /// sampled position before it.
    since: Option<(Side, Option<Arc<String>>)>,
}

/// One session.
struct Session {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    entry: Arc<Entry>,
    client: Client,
    legs: [Option<Leg>; 2],
    parts: [Part; 2],
    state: State,
    prepared: Prepared,
    /// What the statement under way was prepared under.
    under: Option<Arc<Under>>,
    /// What the one prepared last was.
    last_under: Option<Arc<Under>>,
    transaction: Transaction,
    diagnostics: Option<Diagnostics>,
    temporary_tables: Vec<TemporaryTable>,
    /// Open HANDLERs, with the side of each.
    handlers: Vec<(Vec<u8>, Side)>,
    /// What stays held of a statement that held every route.
    narrow: Option<RouteMask>,
    values: Values,
    locked_tables: bool,
    /// By FLUSH TABLES WITH READ LOCK.
    read_locked: bool,
    xa: bool,
    /// Text prepared by SQL PREPARE stands for anything.
    login: LoginParts,
    /// When the other leg may be tried again.
    retry_other: Option<Instant>,
    /// For every wait on a mirror.
    timer: Timer,
    statement_count: u64,
    /// Warnings of the last read on the mirror.
    read_warnings: u16,
    seed: u64,
    legs_broken: bool,
    /// The account's password has expired ([`sandbox`]).
    sandboxed: bool,
    pending: Pending,
    /// Own writes that the mirror did not get.
    debts: Arc<Debts>,
}

/// What is needed to open the other leg later.
struct LoginParts {
    user: Vec<u8>,
    charset: u16,
    max_packet: u32,
    connect_attrs: Vec<u8>,
    visitor: Visitor,
    /// The nonce the client was greeted with.
    nonce: [u8; crate::auth::NONCE_LEN],
}

/// Serves one accepted client to its end.
pub async fn run(socket: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let home = shared.routes.peek().home();
    let logged = match Box::pin(login::login(socket, peer, &shared.login, home)).await {
        Ok(logged) => logged,
        Err(end) => {
            telemetry::connection("refused");
            tracing::debug!(%peer, %end, "login ended");
            return;
        }
    };
    telemetry::connection("accepted");
    let peer = logged.visitor.peer;
    let slot = shared.routes.register();
    let mut session = Box::new(Session::new(logged, shared, slot.clone()));
    let end = {
        let serving = session.serve();
        tokio::select! {
            biased;
            end = serving => end,
            () = slot.killed() => End::Killed,
        }
    };
    if let Some((side, kind)) = end.labels() {
        telemetry::error(side, kind);
        tracing::info!(session = slot.id, %peer, %end, "session ended");
    }
    Box::pin(session.close(end)).await;
}

impl Session {
    fn new(logged: LoggedIn, shared: Arc<Shared>, slot: Arc<Slot>) -> Session {
        let user = String::from_utf8_lossy(&logged.user).into_owned();
        let peer = logged.visitor.peer;
        slot.set_label(format!("{user}@{peer}"));
        let side = logged.home_side;
        let server = ServerKind {
            mariadb: logged.home.info.mariadb,
            version: logged.home.info.version_number,
        };
        let status = logged.home.status;
        let leg = Leg::new(side, logged.home, logged.database.clone());
        let database = logged.database.as_deref().unwrap_or(&[]);
        let threads = shared.registry.threads.clone();
        let greeted = logged.greeted_id;
        let entry = Entry::new(slot.clone(), user, peer, greeted, side, database, threads);
        let entry = Arc::new(entry);
        shared.registry.add(entry.clone());
        let mut legs = [None, None];
        legs[side.index()] = Some(leg);
        Session {
            client: Client {
                stream: logged.client,
                input: Buffer::default(),
                capabilities: logged.capabilities,
                traffic: client::Traffic::default(),
            },
            legs,
            parts: [Part::None; 2],
            state: State::new(
                logged.database,
                status.without(Status::SESSION_STATE_CHANGED),
                server,
            ),
            prepared: Prepared::default(),
            under: None,
            last_under: None,
            transaction: Transaction::default(),
            diagnostics: None,
            temporary_tables: Vec::new(),
            handlers: Vec::new(),
            narrow: None,
            values: Values::new(side),
            locked_tables: false,
            read_locked: false,
            xa: false,
            login: LoginParts {
                user: logged.user,
                charset: logged.charset,
                max_packet: logged.max_packet,
                connect_attrs: logged.connect_attrs,
                visitor: logged.visitor,
                nonce: logged.nonce,
            },
            retry_other: None,
            timer: Timer::default(),
            statement_count: 0,
            read_warnings: 0,
            seed: RandomState::new().build_hasher().finish(),
            legs_broken: false,
            sandboxed: false,
            pending: Pending::default(),
            debts: Arc::default(),
            shared,
            slot,
            entry,
        }
    }

    /// The command loop. Returns only at the session's end.
    async fn serve(&mut self) -> End {
        if let Err(end) = Box::pin(self.begin()).await {
            return end;
        }
        loop {
            match self.client.wait(&mut self.legs, HEADER_LEN + 1).await {
                Ok(Woken::Client) => {}
                Ok(Woken::Leg(i)) => {
                    if let Some(end) = Box::pin(self.leg_spoke(i)).await {
                        return end;
                    }
                    continue;
                }
                Err(end) => return end,
            }
            if let Err(end) = self.command().await {
                return end;
            }
        }
    }

    /// An idle leg closed, or said why it will. The lead's is the session's
    /// end, the other's only its own.
    async fn leg_spoke(&mut self, index: usize) -> Option<End> {
        let leg = self.legs[index].take()?;
        self.prepared.leg_gone(index);
        self.entry.set_leg(leg.side, None);
        self.repin();
        let lead = self.lead();
        let values_lost = self.values.leg_gone(leg.side);
        let own = self.parts[index] == Part::Own;
        if leg.side != lead && !values_lost && !own {
            if self.parts[index] == Part::Open {
                self.parts[index] = Part::None;
                self.poison_lost_part();
            }
            return None;
        }
        let _ = self.client.send(leg.input.pending()).await;
        Some(End::Leg(leg.lost("closed by the server while idle")))
    }

    /// The leg that statements without a table go to.
    fn lead(&self) -> Side {
        match self.transaction.lead {
            Some(side) => side,
            None => self.shared.routes.peek().home(),
        }
    }

    /// A number for RAND seeds; not secret, only different each time.
    fn next_seed(&mut self) -> (u32, u32) {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        const MASK: u64 = 0x3FFF_FFFF;
        ((self.seed & MASK) as u32, ((self.seed >> 32) & MASK) as u32)
    }

    /// Ends both legs. The routes stay held until nothing of this session can
    /// still commit: a gate that opened earlier would let an old epoch's write
    /// land on the new mirror.
    ///
    /// The client is let go first: an unreachable backend, which takes the
    /// whole limit, must not look to it like a statement that hangs.
    async fn close(mut self: Box<Self>, end: End) {
        // Killed between such a write and its answer.
        self.unmirrored_done();
        let goodbye = tokio::io::AsyncWriteExt::shutdown(&mut self.client.stream);
        let _ = tokio::time::timeout(GOODBYE_LIMIT, goodbye).await;
        let clean =
            matches!(end, End::Quit) || (matches!(end, End::ClientGone) && !self.legs_broken);
        let shared = self.shared.clone();
        for leg in self.legs.iter_mut() {
            let Some(mut leg) = leg.take() else { continue };
            let mut quit = Vec::new();
            if !(self.legs_broken && self.pending.abandon) {
                // Not into the middle of a file: it would be a line of it.
                crate::wire::frame::put_command(&mut quit, crate::wire::command::COM_QUIT, &[]);
            }
            let said = tokio::time::timeout(Duration::from_millis(50), leg.send(&quit)).await;
            let polite = clean && matches!(said, Ok(Ok(())));
            let (side, id) = (leg.side, leg.info.thread_id);
            if polite && self.slot.holding() == 0 {
                continue;
            }
            // Something may be executing there. A client that vanished gets
            // its running write finished, as on the server itself; its read,
            // and a command or file it had not sent to the end, is ended.
            let abandoned = self.legs_broken && self.pending.abandon;
            let gone = if matches!(end, End::Killed) || abandoned || self.slot.holding() == 0 {
                drop(leg);
                shared
                    .mirror
                    .reaper
                    .kill_and_wait(side, id, END_LIMIT)
                    .await
            } else {
                wait_closed(leg).await || {
                    shared
                        .mirror
                        .reaper
                        .kill_and_wait(side, id, END_LIMIT)
                        .await
                }
            };
            if !gone {
                tracing::warn!(%side, thread_id = id, "a leg could not be ended in time");
            }
        }
        shared.registry.remove(self.slot.id);
        shared.routes.unregister(&self.slot);
    }
}

/// Reads a leg to its end, which its server reaches after finishing what it
/// executes and meeting our QUIT.
async fn wait_closed(mut leg: Leg) -> bool {
    let closed = async {
        loop {
            let n = leg.input.pending().len();
            leg.input.consume(n);
            if leg.fill().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(END_LIMIT, closed).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Each connected client costs this all the time: what is rarely awaited
    /// belongs into a box (`Box::pin(…).await`).
    #[test]
    fn an_idle_session_is_small() {
        let future = size_of_future(run);
        assert!(future <= 1280, "session::run is {future} bytes");
        let session = size_of::<Session>();
        assert!(session <= 2048, "Session is {session} bytes");
    }
}
