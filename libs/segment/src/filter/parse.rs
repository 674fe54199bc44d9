//! From JSON to a filter, refusing by name what the schema does not declare.

use serde_json::{Map, Value};
use sluice_core::{FieldType, FieldValue, Schema};

use super::{Comparison, Filter, FilterError, MAX_DEPTH, MAX_LIST, MAX_NODES, Node, Test, compare};

const TOP: &str = "$and, $or, $not and field names";
const ON_FIELD: &str = "$eq, $ne, $in, $nin, $gt, $gte, $lt, $lte, $exists, $not";

impl Filter {
    /// Reads a filter such as `{"section": "web", "size": {"$gt": 10}}`.
    ///
    /// # Errors
    /// The first part that is no filter, names an undeclared field, compares with another type or is too large.
    pub fn parse(value: &Value, schema: &Schema) -> Result<Self, FilterError> {
        let mut reader = Reader { schema, nodes: 0 };
        Ok(Self { root: reader.object(value, "the filter", 1)? })
    }
}

struct Reader<'a> {
    schema: &'a Schema,
    nodes: usize,
}

/// The field that a condition is about.
struct Field<'a> {
    name: &'a str,
    place: usize,
    kind: FieldType,
}

/// Hostile names may be long; a message quotes only their beginning.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

fn shape(at: &str, expected: &'static str) -> FilterError {
    FilterError::Shape { at: shorten(at), expected }
}

fn all(mut nodes: Vec<Node>) -> Node {
    match nodes.len() {
        1 => nodes.swap_remove(0),
        _ => Node::All(nodes),
    }
}

impl<'a> Reader<'a> {
    fn count(&mut self, depth: usize) -> Result<(), FilterError> {
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return Err(FilterError::TooLarge { what: "levels", max: MAX_DEPTH });
        }
        if self.nodes > MAX_NODES {
            return Err(FilterError::TooLarge { what: "conditions", max: MAX_NODES });
        }
        Ok(())
    }

    fn object(&mut self, value: &'a Value, at: &str, depth: usize) -> Result<Node, FilterError> {
        self.count(depth)?;
        let object = value.as_object().ok_or_else(|| shape(at, "an object"))?;
        let mut nodes = Vec::with_capacity(object.len().min(MAX_NODES));
        for (name, value) in object {
            nodes.push(match name.as_str() {
                "$and" => Node::All(self.list(value, "$and", depth)?),
                "$or" => Node::Any(self.list(value, "$or", depth)?),
                "$not" => Node::Not(Box::new(self.object(value, "$not", depth + 1)?)),
                operator if operator.starts_with('$') => {
                    return Err(FilterError::UnknownOperator { operator: shorten(operator), allowed: TOP });
                }
                _ => {
                    let field = self.field(name)?;
                    self.condition(&field, value, depth)?
                }
            });
        }
        Ok(all(nodes))
    }

    fn list(&mut self, value: &'a Value, at: &str, depth: usize) -> Result<Vec<Node>, FilterError> {
        let items = value.as_array().filter(|items| !items.is_empty());
        let items = items.ok_or_else(|| shape(at, "an array of at least one filter"))?;
        items.iter().map(|item| self.object(item, at, depth + 1)).collect()
    }

    fn field(&self, name: &'a str) -> Result<Field<'a>, FilterError> {
        if let Some((place, kind)) = self.schema.field(name) {
            return Ok(Field { name, place, kind });
        }
        let declared: Vec<_> = self.schema.fields.iter().map(|(n, t)| format!("{n} ({t})")).collect();
        let declared = if declared.is_empty() { "none".into() } else { declared.join(", ") };
        Err(FilterError::UnknownField { field: shorten(name), declared })
    }

    fn condition(&mut self, field: &Field<'_>, value: &'a Value, depth: usize) -> Result<Node, FilterError> {
        match value {
            Value::Object(operators) => self.operators(field, operators, depth + 1),
            bare => {
                self.count(depth)?;
                one_of(field, std::slice::from_ref(bare))
            }
        }
    }

    fn operators(
        &mut self,
        field: &Field<'_>,
        operators: &'a Map<String, Value>,
        depth: usize,
    ) -> Result<Node, FilterError> {
        if operators.is_empty() {
            return Err(shape(field.name, "a value or an object with operators"));
        }
        let mut nodes = Vec::with_capacity(operators.len().min(MAX_NODES));
        for (operator, value) in operators {
            self.count(depth)?;
            nodes.push(self.operator(field, operator, value, depth)?);
        }
        Ok(all(nodes))
    }

    fn operator(
        &mut self,
        field: &Field<'_>,
        operator: &str,
        value: &'a Value,
        depth: usize,
    ) -> Result<Node, FilterError> {
        let not = |node| Node::Not(Box::new(node));
        let one = std::slice::from_ref(value);
        Ok(match operator {
            "$eq" => one_of(field, one)?,
            "$ne" => not(one_of(field, one)?),
            "$in" => one_of(field, items(operator, value)?)?,
            "$nin" => not(one_of(field, items(operator, value)?)?),
            "$gt" => ordered(field, Comparison::Greater, value)?,
            "$gte" => ordered(field, Comparison::GreaterOrEqual, value)?,
            "$lt" => ordered(field, Comparison::Less, value)?,
            "$lte" => ordered(field, Comparison::LessOrEqual, value)?,
            "$exists" => {
                let exists = Node::Some { field: field.place, test: Test::Exists };
                let wanted = value.as_bool().ok_or_else(|| shape("$exists", "true or false"))?;
                if wanted { exists } else { not(exists) }
            }
            "$not" => match value {
                Value::Object(operators) => not(self.operators(field, operators, depth + 1)?),
                _ => return Err(shape("$not", "an object with operators")),
            },
            _ => {
                let operator = shorten(operator);
                return Err(FilterError::UnknownOperator { operator, allowed: ON_FIELD });
            }
        })
    }
}

fn items<'a>(operator: &str, value: &'a Value) -> Result<&'a [Value], FilterError> {
    let items = value.as_array().ok_or_else(|| shape(operator, "an array"))?;
    if items.len() > MAX_LIST {
        return Err(FilterError::TooLarge { what: "values in one list", max: MAX_LIST });
    }
    Ok(items)
}

/// One of `items`; `null` among them stands for "no value".
fn one_of(field: &Field<'_>, items: &[Value]) -> Result<Node, FilterError> {
    let mut values = Vec::with_capacity(items.len());
    let mut absent = false;
    for item in items {
        match item {
            Value::Null => absent = true,
            item => values.push(read(field, item)?),
        }
    }
    values.sort_by(|a, b| compare(a.into(), b.into()));
    values.dedup_by(|a, b| compare((&*a).into(), (&*b).into()).is_eq());
    let listed = Node::Some { field: field.place, test: Test::OneOf(values) };
    if !absent {
        return Ok(listed);
    }
    let exists = Node::Some { field: field.place, test: Test::Exists };
    Ok(Node::Any(vec![listed, Node::Not(Box::new(exists))]))
}

fn ordered(field: &Field<'_>, comparison: Comparison, value: &Value) -> Result<Node, FilterError> {
    Ok(Node::Some { field: field.place, test: Test::Compare(comparison, read(field, value)?) })
}

fn read(field: &Field<'_>, value: &Value) -> Result<FieldValue, FilterError> {
    let whole = |value: &Value| {
        // 10.0 is an integer in the eyes of those who write it; beyond 2^53 a float names no single one
        let number = value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0)?;
        Some(FieldValue::Integer(number as i64))
    };
    let read = field.kind.read(value);
    let read = if field.kind == FieldType::Integer && value.is_f64() { whole(value) } else { read };
    read.ok_or_else(|| FilterError::Type {
        field: field.name.into(),
        expected: field.kind,
        got: match value {
            Value::Null => "null".into(),
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Number(n) => format!("the number {n}"),
            Value::String(s) => format!("the text {:?}", shorten(s)),
            Value::Array(_) => "an array (use $in)".into(),
            Value::Object(_) => "an object".into(),
        },
    })
}
