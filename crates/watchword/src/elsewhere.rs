//! Routes for the API paths that other roles serve. Their 404 names the role, so that a caller with
//! the address of the wrong role does not see an ordinary "not found".

use axum::Router;
use axum::routing::any;
use watchword_chassis::{Problem, ProblemCode};

use crate::cli::Role;

const PATHS: [(Role, &[&str]); 3] = [
    (
        Role::Issuer,
        &["/v1/verifications", "/v1/verifications/{id}/resend"],
    ),
    (
        Role::Verifier,
        &["/v1/verifications/{id}", "/v1/verifications/{id}/check"],
    ),
    (Role::SmsWorker, &["/v1/receipts/{provider}"]),
];

/// Returns routes for the paths of all roles that are not in `roles`.
pub(crate) fn routes(roles: &[Role]) -> Router {
    let mut routes = Router::new();
    for (role, paths) in PATHS {
        if roles.contains(&role) {
            continue;
        }
        for path in paths {
            routes = routes.route(path, any(move || async move { not_found(role) }));
        }
    }
    routes
}

fn not_found(role: Role) -> Problem {
    let detail = format!("this path is served by the {} role", role.as_str());
    Problem::new(ProblemCode::NotFound, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The router panics if a path of a role overlaps with these routes.
    #[test]
    fn a_path_is_served_by_one_role() {
        let mut all = Router::new();
        for role in Role::ALL {
            let others: Vec<_> = Role::ALL.into_iter().filter(|one| *one != role).collect();
            all = all.merge(routes(&others));
        }
        assert!(all.has_routes());
    }
}
