//! Names of combinations, made of the names of their stores.

/// `WHAT NAME VERSION, NAME VERSION (NOTE; ORIGIN)` of stores that are `NAME VERSION (ORIGIN)`.
pub(crate) fn about(what: &str, between: &str, note: &str, stores: &[String]) -> String {
    let (mut names, mut origins) = (Vec::new(), Vec::new());
    for store in stores {
        let (name, origin) = store.split_once(" (").unwrap_or((store, ""));
        names.push(name);
        let origin = origin.strip_suffix(')').unwrap_or(origin);
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    format!("{what} {} ({note}; {})", names.join(&format!("{between} ")), origins.join(", "))
}
