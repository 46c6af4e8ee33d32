// Any bytes as tables, tasks and JSON lines. What is read as a table and written with all fields in
// quotes is read as the same table again.

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>

namespace ln = linnet;

namespace {

void same_again(const ln::table& t) {
  std::string written;
  for (ln::index i = 0; i < t.rows(); ++i)
    for (ln::index j = 0; j < t.columns(); ++j) {
      written += j == 0 ? "\"" : ",\"";
      for (const char c : t.at(i, j)) written += c == '"' ? "\"\"" : std::string(1, c);
      written += j + 1 == t.columns() ? "\"\r\n" : "\"";
    }
  const auto again = ln::table::parse(written, ln::table_format::csv(false));
  if (!again || again->rows() != t.rows()) __builtin_trap();
  for (ln::index i = 0; i < t.rows(); ++i)
    for (ln::index j = 0; j < t.columns(); ++j)
      if (again->columns() != t.columns() || again->at(i, j) != t.at(i, j)) __builtin_trap();
}

/// Fails in words or gives texts that a class of the task stands for.
template <class Pairs>
void sound(const Pairs& pairs, const ln::text_task& task) {
  if (!pairs) {
    if (pairs.error().message().empty()) __builtin_trap();
    return;
  }
  for (const ln::text_pair& p : *pairs)
    if (task.class_of(p.target) < 0 || !p.input.starts_with(task.name)) __builtin_trap();
}

/// Fails in words or gives items whose answer is one of their options.
void sound(const ln::result<std::vector<ln::eval_item>>& items) {
  if (!items) {
    if (items.error().message().empty()) __builtin_trap();
    return;
  }
  if (items->empty()) __builtin_trap();
  for (const ln::eval_item& item : *items) {
    if (item.answer < 0 || item.answer >= std::ssize(item.options)) __builtin_trap();
    for (const std::string& option : item.options)
      if (option.empty()) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto format : {ln::table_format::tsv(false), ln::table_format::csv(false)})
    if (const auto t = ln::table::parse(text, format)) same_again(*t);
  if (const auto t = ln::parse_json_lines(text, {"a", "b"})) same_again(*t);
  sound(ln::glue::read_sst2(text, "f"), ln::glue::sst2);
  sound(ln::glue::read_cola(text, "f"), ln::glue::cola);
  using ln::glue::mnli_layout;
  for (const auto l : {mnli_layout::named, mnli_layout::label_first, mnli_layout::question})
    sound(ln::glue::read_mnli(text, l, "f"), ln::glue::mnli);
  if (const auto t = ln::parse_json_array(text, {"a", "b"})) same_again(*t);
  for (const auto read : {ln::read_blimp, ln::read_arc, ln::read_winogrande, ln::read_lambada,
                          ln::read_gsm8k, ln::read_hellaswag})
    sound(read(text, "f"));
  sound(ln::read_mmlu(text, "", "f"));
  (void)ln::last_number(text);
  return 0;
}
