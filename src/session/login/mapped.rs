//! The login of a user that `users:` maps on home: the proxy judges.

use std::net::SocketAddr;

use zeroize::Zeroizing;

use super::{
    Answered, LoginContext, LoginEnd, deny, ok_for_client, tell_unreachable, with_instance,
};
use crate::auth::{Account, Mapped, NATIVE};
use crate::leg::connect::{Authenticated, LegError, LoginParams, Opened, login as leg_login};
use crate::leg::stream::write_packet;
use crate::session::proof::Proof;

/// Verifies a mapped user's password here and logs in to home as the user it
/// is mapped to.
pub(super) async fn mapped_login(
    ctx: &LoginContext,
    opened: Opened,
    answered: &mut Answered,
    mapped: &Mapped,
) -> Result<Authenticated, LoginEnd> {
    let account = &mapped.account;
    let mut proof = Proof {
        client: &mut answered.client,
        seq: answered.seq,
        patience: answered.patience,
        plugin: answered
            .response
            .auth_plugin
            .clone()
            .unwrap_or_else(|| NATIVE.to_vec()),
        nonce: opened.greeting.nonce,
        answer: Zeroizing::new(answered.answer.to_vec()),
    };
    let proven = proof.run(account, &opened.greeting.auth_plugin).await;
    answered.answer = proof.answer;
    answered.seq = proof.seq;
    if !proven? {
        return Err(deny(ctx, opened, answered).await);
    }
    let visitor = answered.visitor;
    learn_mapped(ctx, &answered.response.user, visitor.peer, account);
    let params = LoginParams {
        capabilities: answered.capabilities,
        charset: u16::from(answered.response.charset),
        max_packet: answered.response.max_packet,
        database: answered
            .response
            .database
            .clone()
            .filter(|db| !db.is_empty()),
        connect_attrs: with_instance(ctx, answered.attributes()),
        visitor: Some(visitor),
        certificate: mapped.certificate.clone(),
    };
    match leg_login(opened, account, &params).await {
        Ok(leg) => {
            let ok = ok_for_client(&leg.ok, leg.capabilities, answered.capabilities);
            let told = write_packet(&mut answered.client, &mut answered.seq, &ok).await;
            told.map_err(LoginEnd::Client)?;
            Ok(leg)
        }
        Err(LegError::Refused {
            side, code, packet, ..
        }) => {
            let told = write_packet(&mut answered.client, &mut answered.seq, &packet).await;
            told.map_err(LoginEnd::Client)?;
            Err(LoginEnd::Refused { side, code })
        }
        Err(error) => Err(tell_unreachable(answered, error).await),
    }
}

/// Keeps a proven mapped password under the client's user name: on a side
/// without a mapping the user has this name and this password.
pub(crate) fn learn_mapped(ctx: &LoginContext, user: &[u8], peer: SocketAddr, account: &Account) {
    if let Some(password) = account.password() {
        ctx.learn(user, peer.ip(), Account::new(user.to_vec(), password));
    }
}
