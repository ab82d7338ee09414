//! Renewing leases, many by one statement.

use lockcore::{BackendError, Claim, HolderId, Limits, Renew};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use crate::answer::Answer;
use crate::error;
use crate::exchange::Subject;
use crate::params::{Uuid, micros};
use crate::route::Route;
use crate::statements::Statements;

type Renewed = Result<Renew, BackendError>;

/// Renews leases: an answer each, in the order of the claims.
pub(crate) async fn renew(
    route: &Route,
    statements: &Statements,
    table: &str,
    limits: Limits,
    claims: &[Claim],
) -> Vec<Renewed> {
    let mut answers: Vec<Option<Renewed>> = claims
        .iter()
        .map(|claim| limits.check(claim).err().map(|wrong| Err(wrong.into())))
        .collect();
    // What cannot be asked for is left out; the others are asked for by their place in the list.
    let asked: Vec<_> = (0..claims.len()).filter(|&at| answers[at].is_none()).collect();
    if !asked.is_empty() {
        let claims: Vec<_> = asked.iter().map(|&at| claims[at].clone()).collect();
        let renewed = all(route, statements, table, &claims).await;
        for (at, renewed) in asked.into_iter().zip(renewed) {
            answers[at] = Some(renewed);
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or_else(no_answer)).collect()
}

fn no_answer() -> Renewed {
    Err(error::unexpected("a renewal"))
}

/// The statement for claims that can be asked for.
async fn all(
    route: &Route,
    statements: &Statements,
    table: &str,
    claims: &[Claim],
) -> Vec<Renewed> {
    let keys: Vec<_> = claims.iter().map(|claim| claim.key.as_str().as_bytes()).collect();
    let holders: Vec<_> = claims.iter().map(|claim| Uuid::from(claim.holder)).collect();
    let ttls: Vec<_> = claims.iter().map(|claim| micros(claim.ttl)).collect();
    let floors: Vec<_> = claims.iter().map(|claim| claim.min_token.cast_signed()).collect();
    let incarnation = claims.iter().any(|claim| claim.incarnation);
    let new_id = Uuid(if incarnation { HolderId::random().as_u128() } else { 0 });
    let params = [
        (&keys as _, Type::BYTEA_ARRAY),
        (&holders as _, Type::UUID_ARRAY),
        (&ttls as _, Type::INT8_ARRAY),
        (&floors as _, Type::INT8_ARRAY),
        (&new_id as _, Type::UUID),
    ];
    let (query, params) = statements.renew.pick(incarnation, &params);
    let rows = match route.command(Subject::renewals(claims), query, params).await {
        Ok(rows) => rows,
        Err(failure) => return claims.iter().map(|_| Err(error::again(&failure))).collect(),
    };
    let mut answers: Vec<_> = claims.iter().map(|_| None).collect();
    for row in &rows {
        let at = row.try_get::<_, i64>("number").ok();
        let at = at.and_then(|number| usize::try_from(number - 1).ok());
        if let Some(at) = at.filter(|&at| at < claims.len()) {
            answers[at] = Some(one(row, table, &claims[at]));
        }
    }
    answers.into_iter().map(|answer| answer.unwrap_or_else(no_answer)).collect()
}

fn one(row: &Row, table: &str, claim: &Claim) -> Renewed {
    let answer = Answer { row, what: "a renewal" };
    answer.is_ours(table)?;
    Ok(answer.granted(claim)?.map_or(Renew::NotHeld, Renew::Renewed))
}
