//! Values and connection strings as the proxy reads them.

use super::target;
use super::values::typed;

#[test]
fn values_are_typed_as_the_proxy_types_them() {
    assert_eq!(typed("t", 16).as_deref(), Some("true"));
    assert_eq!(typed("42", 23).as_deref(), Some("42"));
    assert_eq!(typed("42", 20).as_deref(), Some("\"42\""));
    assert_eq!(typed("NaN", 701).as_deref(), Some("\"NaN\""));
    assert_eq!(typed("{1,NULL,{2}}", 1007).as_deref(), Some("[1,null,[2]]"));
    assert_eq!(typed("{\"a,b\",c}", 1009).as_deref(), Some("[\"a,b\",\"c\"]"));
}

#[test]
fn an_empty_array_is_misread_as_the_proxy_misreads_it() {
    assert_eq!(typed("{}", 1009).as_deref(), Some("[\"\"]"));
    assert_eq!(typed("{}", 1007), None);
}

#[test]
fn a_connection_string_is_checked_part_by_part() {
    let message =
        |text: Option<&str>| target(text).err().map(|answer| answer.body).unwrap_or_default();
    assert!(message(None).contains("invalid header: neon-connection-string"));
    assert!(message(Some("mysql://a:b@ep-x.y/d")).contains("incorrect scheme"));
    assert!(message(Some("postgresql://a:b@ep-x.y/")).contains("missing database name"));
    assert!(message(Some("postgresql://ep-x.y/d")).contains("missing username"));
    assert!(message(Some("postgresql://a@ep-x.y/d")).contains("required password"));
    assert!(message(Some("postgresql://a:b@127.0.0.1/d")).contains("missing hostname"));
    let good = target(Some("postgresql://a:p%40+b@ep-x-pooler.y/d?sslmode=require"))
        .ok()
        .expect("it is complete");
    assert_eq!((good.endpoint.as_str(), good.password.as_str()), ("ep-x", "p@+b"));
}
