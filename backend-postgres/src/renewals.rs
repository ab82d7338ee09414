//! Renewing leases, many by one statement.

use lockcore::{BackendError, Claim, HolderId, Limits, Renew};
use tokio_postgres::types::Type;

use crate::answer::{self, Answer};
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
        let claims: Vec<_> = asked.iter().map(|&at| &claims[at]).collect();
        match all(route, statements, table, &claims).await {
            Ok(renewed) => {
                for (at, renewed) in asked.into_iter().zip(renewed) {
                    answers[at] = Some(renewed);
                }
            }
            Err(failure) => {
                for at in asked {
                    answers[at] = Some(Err(error::again(&failure)));
                }
            }
        }
    }
    let missing = || Err(error::unexpected("a renewal"));
    answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
}

/// The statement for claims that can be asked for: an answer each, or one failure for all.
async fn all(
    route: &Route,
    statements: &Statements,
    table: &str,
    claims: &[&Claim],
) -> Result<Vec<Renewed>, BackendError> {
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
    let rows = route.command(Subject::renewals(claims), query, params).await?;
    let answer = Answer::one(&rows, "a renewal")?;
    let tokens: Vec<Option<i64>> = answer.get("tokens")?;
    let formats: Vec<Option<i16>> = answer.get("formats")?;
    let incarnation = incarnation.then(|| answer.incarnation()).transpose()?;
    let one = |((claim, token), format): ((&&Claim, Option<i64>), Option<i16>)| {
        answer::is_ours(table, format)?;
        let Some(token) = token else { return Ok(Renew::NotHeld) };
        let told = incarnation.filter(|_| claim.incarnation);
        Ok(Renew::Renewed(answer::lease(claim, answer.a_token(token)?).with_incarnation(told)))
    };
    Ok(claims.iter().zip(tokens).zip(formats).map(one).collect())
}
