//! The catalogue's tables against `pg_settings` of running servers.

use pgitops::pgconf::{Catalogue, Kind};

use crate::postgres::{self, Server};

#[test]
fn the_tables_say_what_the_servers_report() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a tokio runtime");
    for (major, bin) in postgres::bin_dirs() {
        let catalogue = Catalogue::for_major(major).expect("a catalogue of an installed major");
        let rows = runtime.block_on(read_settings(&Server::start(&bin, "")));
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
        let theirs =
            rows.iter().find(|row| row.name == VERSION).and_then(|row| row.boot.as_deref());
        let ours = catalogue.get(VERSION).and_then(|parameter| parameter.boot());
        // A later minor version may bring a parameter: said, until the table is made anew.
        let later = number(theirs) > number(ours);
        let (new, known): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| later && catalogue.get(&row.name).is_none());
        for row in new {
            println!("PostgreSQL {major} has {} now; run tests/catalogue/make.sh", row.name);
        }
        let differ: Vec<String> =
            known.into_iter().filter_map(|row| difference(catalogue, row)).collect();
        println!("PostgreSQL {major}: {} parameters, table of {}", rows.len(), catalogue.version());
        assert!(
            differ.is_empty(),
            "PostgreSQL {major}; run tests/catalogue/make.sh:\n{}",
            differ.join("\n")
        );
    }
}

const VERSION: &str = "server_version_num";
/// What whoever builds a server decides: its value there says nothing about another build.
const OF_THE_BUILD: [&str; 4] =
    [VERSION, "server_version", "krb_server_keyfile", "unix_socket_directories"];
/// Parameters that distributions add.
const OF_A_DISTRIBUTION: [&str; 1] = ["extension_destdir"];

/// A row of `pg_settings`.
struct Row {
    name: String,
    context: String,
    vartype: String,
    unit: Option<String>,
    limits: (Option<String>, Option<String>),
    words: Option<Vec<String>>,
    boot: Option<String>,
}

async fn read_settings(server: &Server) -> Vec<Row> {
    let (client, connection) =
        server.connection().connect(tokio_postgres::NoTls).await.expect("connect to the server");
    let connection = tokio::spawn(connection);
    let columns = "name, context, vartype, unit, min_val, max_val, enumvals, boot_val";
    let query = format!("select {columns} from pg_settings where name not like '%.%'");
    let rows = client.query(&query, &[]).await.expect("read pg_settings");
    drop(client);
    let _ = connection.await;
    let read = |row: &tokio_postgres::Row| Row {
        name: row.get(0),
        context: row.get(1),
        vartype: row.get(2),
        unit: row.get(3),
        limits: (row.get(4), row.get(5)),
        words: row.get(6),
        boot: row.get(7),
    };
    rows.iter().map(read).collect()
}

/// In what the catalogue and a server differ about one parameter, if at all. Words of an enum may
/// be missing from either: they depend on the build.
fn difference(catalogue: &Catalogue, row: &Row) -> Option<String> {
    let Some(parameter) = catalogue.get(&row.name) else {
        let added = OF_A_DISTRIBUTION.contains(&row.name.as_str());
        return (!added).then(|| format!("{} is not in the table", row.name));
    };
    let of_the_build = OF_THE_BUILD.contains(&row.name.as_str());
    let number = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    let near = |a: Option<f64>, b: f64| a.is_some_and(|a| (a - b).abs() <= b.abs() * 1e-5);
    let same_kind = match (parameter.kind(), row.vartype.as_str()) {
        (Kind::Bool, "bool") | (Kind::Text, "string") => true,
        (Kind::Integer(range), "integer") | (Kind::Real(range), "real") => {
            of_the_build
                || near(number(&row.limits.0), range.min) && near(number(&row.limits.1), range.max)
        }
        (Kind::Enum { words, .. }, "enum") => {
            let theirs = row.words.iter().flatten();
            theirs.clone().any(|word| words.contains(&word.as_str()))
        }
        (Kind::Bool | Kind::Text | Kind::Integer(_) | Kind::Real(_) | Kind::Enum { .. }, _) => {
            false
        }
    };
    let same_unit = parameter.unit().map(|unit| unit.name()) == row.unit.as_deref();
    let same_context = parameter.context().as_str() == row.context;
    let same_boot = of_the_build || parameter.boot() == row.boot.as_deref();
    (!(same_kind && same_unit && same_context && same_boot))
        .then(|| format!("{}: {parameter:?}", row.name))
}
