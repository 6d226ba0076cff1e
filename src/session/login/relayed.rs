//! The ordinary login: home judges the client's answer.

use zeroize::{Zeroize, Zeroizing};

use super::{
    Answered, LoginContext, LoginEnd, deny, ok_for_client, tell_unreachable, with_instance,
};
use crate::auth::{CLEAR, NATIVE, SHA256, caching_sha2};
use crate::leg::connect::{Authenticated, Opened, err_code};
use crate::session::auth_relay::{Relay, Verdict, sends_password};
use crate::session::change_user::NO_PLUGIN;
use crate::wire::capability::Capabilities;
use crate::wire::greeting::HandshakeResponse;

/// Hands the client's answer to home and relays the rest.
pub(super) async fn relayed_login(
    ctx: &LoginContext,
    mut opened: Opened,
    answered: &mut Answered,
) -> Result<Authenticated, LoginEnd> {
    let side = opened.side;
    opened.protect(Some(&answered.visitor), None);
    let (tls, greeting) = (opened.uses_tls(), &opened.greeting);
    let mut response = for_home(ctx, answered, greeting.capabilities, tls);
    let caps = response.capabilities;
    let (max_packet, charset) = (response.max_packet, response.charset);
    let nonce = greeting.nonce;
    let begun = async {
        let mut opened = opened.secure(caps, max_packet, charset).await?;
        opened.write(&Zeroizing::new(response.build())).await?;
        response.auth_response.zeroize();
        Ok(opened)
    };
    let mut opened = match begun.await {
        Ok(opened) => opened,
        Err(error) => return Err(tell_unreachable(answered, error).await),
    };
    let plugin = response.auth_plugin.unwrap_or_else(|| NATIVE.to_vec());
    // Worth keeping if home judges by it, without a switch to another plugin.
    let clear = sends_password(&plugin) && answered.client.is_tls() && opened.stream.is_tls();
    let password = clear.then(|| caching_sha2::from_clear(answered.answer.to_vec()));
    let mut relay = Relay {
        ctx,
        side,
        client: &mut answered.client,
        client_seq: answered.seq,
        patience: answered.patience,
        leg: &mut opened.stream,
        leg_seq: opened.seq,
        user: &answered.response.user,
        peer: answered.visitor.peer.ip(),
        plugin,
        nonce,
        answer: answered.answer.clone(),
        greeted: None,
        password,
    };
    let verdict = relay.run().await;
    let result = match verdict {
        Ok(Verdict::Ok(ok)) => {
            if !answered.visitor.tls && tls && relay.needs_tls(caps).await {
                answered.seq = relay.client_seq;
                return Err(deny(ctx, opened, answered).await);
            }
            let told = ok_for_client(&ok, caps, answered.capabilities);
            relay.write_client(&told).await?;
            relay.learn().await;
            Ok(ok)
        }
        Ok(Verdict::Err(packet)) => {
            relay.write_client(&packet).await?;
            let code = err_code(&packet);
            return Err(LoginEnd::Refused { side, code });
        }
        Err(end) => {
            answered.seq = relay.client_seq;
            Err(end)
        }
    };
    match result {
        Ok(ok) => Ok(opened.authenticated(caps, max_packet, ok)?),
        Err(LoginEnd::Home(error)) => Err(tell_unreachable(answered, error).await),
        Err(end) => Err(end),
    }
}

/// Our response to home on behalf of the client.
fn for_home(
    ctx: &LoginContext,
    answered: &Answered,
    server: Capabilities,
    tls: bool,
) -> HandshakeResponse {
    let mut response = answered.response.clone();
    let mut caps = answered.capabilities.without(Capabilities::SSL);
    // Session tracking is how the proxy follows the session, whether or not
    // the client wants it.
    caps = caps | (server & Capabilities::SESSION_TRACK);
    if tls {
        caps = caps.with(Capabilities::SSL);
    }
    if server.has(Capabilities::CONNECT_ATTRS) {
        caps = caps.with(Capabilities::CONNECT_ATTRS);
        let client = response.connect_attrs.unwrap_or_default();
        response.connect_attrs = Some(with_instance(ctx, client));
    } else {
        response.connect_attrs = None;
    }
    // The flags must say what the packet holds: TLS and the OK depend on them.
    for (flag, present) in [
        (Capabilities::CONNECT_WITH_DB, response.database.is_some()),
        (Capabilities::PLUGIN_AUTH, response.auth_plugin.is_some()),
    ] {
        if !present {
            caps = caps.without(flag);
        }
    }
    let plugin = response.auth_plugin.as_deref().unwrap_or(NATIVE);
    let exposed = answered.client.is_tls() && !tls;
    if plugin == SHA256 && answered.client.is_tls() != tls {
        // What it sends depends on its connection's protection, and what home
        // takes on the leg's. Home asks again for its own plugin.
        response.auth_plugin = Some(NO_PLUGIN.to_vec());
        response.zstd_level = None;
        response.capabilities = caps;
        return response;
    }
    let refused = if plugin == CLEAR {
        !(answered.client.is_tls() && tls)
    } else {
        sends_password(plugin) && exposed
    };
    if !refused {
        response.auth_response = answered.answer.to_vec();
    }
    response.zstd_level = None;
    response.capabilities = caps;
    response
}
