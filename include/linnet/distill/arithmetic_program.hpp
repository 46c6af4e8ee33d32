// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Small programs of arithmetic, as teachers write them in Python, run without any access to the
/// machine.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <system_error>

#include <linnet/core/options.hpp>
#include <linnet/core/real_text.hpp>
#include <linnet/core/result.hpp>

LINNET_NAMESPACE_BEGIN

/// Most that a program may take.
struct program_limits {
  index bytes = 4096;  ///< of its source
  index steps = 1000;  ///< operations, names, numbers and calls that are evaluated
  index names = 100;   ///< variables
  index depth = 50;    ///< parentheses, signs and powers inside each other

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("bytes", self.bytes, detail::count(1));
    f("steps", self.steps, detail::count(1));
    f("names", self.names, detail::count(1));
    f("depth", self.depth, detail::option_range{.least = 1, .most = 1000});
  }
};

namespace detail {

/// Reads a program and evaluates it as it goes. A text in `problem_` ends it.
class program_runner {
 public:
  program_runner(std::string_view source, const program_limits& l) : limits_(l), rest_(source) {}

  result<double> run() {
    if (std::ssize(rest_) > limits_.bytes)
      return failure(errc::invalid, "program", "size",
                     "at most " + std::to_string(limits_.bytes) + " bytes",
                     std::to_string(rest_.size()));
    while (!ended_ && problem_.empty() && !rest_.empty()) {
      ++line_;
      statement();
    }
    if (problem_.empty() && !has_value_) problem_ = "no value", got_ = "a program without one";
    if (problem_.empty()) return value_;
    return failure(errc::invalid, "program", "line " + std::to_string(line_), "a program that runs",
                   problem_ + (got_.empty() ? "" : ": " + got_));
  }

 private:
  void fail(std::string_view problem, std::string_view got = {}) {
    if (!problem_.empty()) return;
    problem_ = problem;
    got_ = printable(got);
  }
  static bool begins_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }
  static bool is_numeral(char c) { return c >= '0' && c <= '9'; }
  /// The next character of the line behind blanks; 0 at its end.
  char peek() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\t' || rest_[0] == '\r'))
      rest_.remove_prefix(1);
    return rest_.empty() || rest_[0] == '\n' || rest_[0] == '#' ? '\0' : rest_[0];
  }
  bool take(std::string_view sign) {
    if (peek() == '\0' || !rest_.starts_with(sign)) return false;
    rest_.remove_prefix(sign.size());
    return true;
  }
  std::string_view take_name() {
    std::size_t n = 0;
    if (begins_name(peek()))
      while (n < rest_.size() && (begins_name(rest_[n]) || is_numeral(rest_[n]))) ++n;
    const std::string_view name = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return name;
  }
  bool step() {
    if (++steps_ > limits_.steps) fail("too many steps");
    return problem_.empty();
  }

  void statement() {
    const std::string_view begin = rest_;
    const std::string_view name = peek() == '\0' ? std::string_view() : take_name();
    if (name == "def") {  // its body's lines follow
      rest_.remove_prefix((std::min)(rest_.find('\n'), rest_.size()));
    } else if (name == "return" || name == "print") {
      value_ = sum();
      has_value_ = true;
      ended_ = name == "return" || ended_;
    } else if (!name.empty()) {
      const char operation = peek();
      const bool changes = std::string_view("+-*/").find(operation) != std::string_view::npos &&
                           rest_.size() > 1 && rest_[1] == '=' && operation != '\0';
      if (changes) rest_.remove_prefix(1);
      if ((changes || operation == '=') && !rest_.starts_with("==") && take("=")) {
        const double right = sum();
        const double x = changes ? apply(operation, variable(name), right) : right;
        assign(name, x);
      } else {
        rest_ = begin;
        value_ = sum();
        has_value_ = true;
      }
    } else if (peek() != '\0') {
      value_ = sum();
      has_value_ = true;
    }
    if (problem_.empty() && peek() != '\0')
      fail("not understood", rest_.substr(0, (std::min)(rest_.find('\n'), rest_.size())));
    if (!problem_.empty()) return;
    rest_.remove_prefix((std::min)(rest_.find('\n'), rest_.size()));
    if (!rest_.empty()) rest_.remove_prefix(1);
  }
  void assign(std::string_view name, double x) {
    if (!problem_.empty()) return;
    if (std::ssize(variables_) >= limits_.names && !variables_.contains(std::string(name)))
      return fail("too many names", name);
    variables_[std::string(name)] = value_ = x;
    has_value_ = true;
  }
  double variable(std::string_view name) {
    const auto found = variables_.find(std::string(name));
    if (found == variables_.end()) return fail("a name that has no value", name), 0.0;
    return found->second;
  }
  double finite(double x) {
    if (!is_finite(x)) fail("a number that is too large");
    return problem_.empty() ? x : 0;
  }
  double apply(char operation, double a, double b) {
    if (!step()) return 0;
    switch (operation) {
      case '+':
        return finite(a + b);
      case '-':
        return finite(a - b);
      case '*':
        return finite(a * b);
      default:
        break;
    }
    // '/' and, as letters, 'f' for // and 'm' for %, which round downwards as Python's do. They go
    // by the exact remainder, as a quotient may have been rounded up: 1 // 0.1 is 9.
    if (b == 0) return fail("division by zero"), 0.0;
    if (operation == '/') return finite(a / b);
    double left = std::fmod(a, b);
    if (left != 0 && (left < 0) != (b < 0)) left += b;
    return finite(operation == 'f' ? std::nearbyint((a - left) / b) : left);
  }

  double sum() {
    double x = product();
    while (problem_.empty()) {
      if (take("+"))
        x = apply('+', x, product());
      else if (take("-"))
        x = apply('-', x, product());
      else
        break;
    }
    return x;
  }
  double product() {
    double x = signed_power();
    while (problem_.empty() && !(peek() == '*' && rest_.starts_with("**"))) {
      if (take("*"))
        x = apply('*', x, signed_power());
      else if (take("//"))
        x = apply('f', x, signed_power());
      else if (take("/"))
        x = apply('/', x, signed_power());
      else if (take("%"))
        x = apply('m', x, signed_power());
      else
        break;
    }
    return x;
  }
  /// A sign binds weaker than **, as in Python: -2 ** 2 is -4.
  double signed_power() {
    const inside here(*this);
    if (!problem_.empty()) return 0;
    if (take("-")) return -signed_power();
    if (take("+")) return signed_power();
    const double base = atom();
    if (!problem_.empty() || !take("**")) return base;
    const double exponent = signed_power();
    if (!step()) return 0;
    if (base == 0 && exponent < 0) return fail("division by zero"), 0.0;
    if (base < 0 && exponent != std::floor(exponent))
      return fail("a root of a negative number"), 0.0;
    return finite(std::pow(base, exponent));
  }
  double atom() {
    if (!step()) return 0;
    const char c = peek();
    if (take("(")) {
      const double x = sum();
      if (problem_.empty() && !take(")")) fail("no closing parenthesis");
      return x;
    }
    if (is_numeral(c) || c == '.') return number();
    const std::string_view name = take_name();
    if (name.empty())
      return fail("no value", c == '\0' ? std::string_view("the line's end") : rest_.substr(0, 1)),
             0.0;
    return take("(") ? call(name) : variable(name);
  }
  double number() {
    std::string digits;  // underscores divide thousands
    std::size_t n = 0;
    for (; n < rest_.size(); ++n) {
      const char c = rest_[n];
      const bool exponent = (c == 'e' || c == 'E') && n + 1 < rest_.size() &&
                            (is_numeral(rest_[n + 1]) || rest_[n + 1] == '-');
      const bool sign = c == '-' && n > 0 && (rest_[n - 1] == 'e' || rest_[n - 1] == 'E');
      if (!is_numeral(c) && c != '.' && c != '_' && !exponent && !sign) break;
      if (c != '_') digits += c;
    }
    double x = 0;
    const char* const end = digits.data() + digits.size();
    const auto [stop, problem] = read_real(digits.data(), end, x);
    if (stop != end || problem != std::errc() || !is_finite(x))
      return fail("no number", rest_.substr(0, n)), 0.0;
    rest_.remove_prefix(n);
    return x;
  }
  /// A number with so many decimals. Its own digits decide, as in Python: 2.675 is a little less.
  static double rounded(double x, int decimals) {
    if (decimals < 0) {
      double scale = 1;  // exactly, which a compiler's pow() need not be
      for (int i = decimals; i < 0; ++i) scale *= 10;
      return std::nearbyint(x / scale) * scale;
    }
    char digits[360];  // 309 before the point, a sign, a point and 15 behind it
    const auto written =
        std::to_chars(digits, digits + sizeof digits, x, std::chars_format::fixed, decimals);
    read_real(digits, written.ptr, x);
    return x;
  }
  double call(std::string_view name) {
    double x[8];
    std::size_t count = 0;
    while (problem_.empty() && !take(")")) {
      if (count == 8 || (count > 0 && !take(","))) return fail("no list of values", name), 0.0;
      x[count++] = sum();
    }
    if (!problem_.empty()) return 0;
    const double first = count > 0 ? x[0] : 0;
    if (count == 1 && (name == "int" || name == "float"))
      return name == "float" ? first : first < 0 ? std::ceil(first) : std::floor(first);
    if (count == 1 && name == "abs") return std::abs(first);
    if (count == 1 && name == "round") return std::nearbyint(first);  // halves to even
    if (count == 2 && name == "round" && x[1] == std::floor(x[1]) && std::abs(x[1]) <= 15)
      return rounded(first, static_cast<int>(x[1]));
    if (count > 0 && (name == "sum" || name == "min" || name == "max")) {
      double all = first;
      for (std::size_t i = 1; i < count; ++i)
        all = name == "sum"   ? all + x[i]
              : name == "min" ? (std::min)(all, x[i])
                              : (std::max)(all, x[i]);
      return finite(all);
    }
    return fail("a function that is not known", name), 0.0;
  }

  /// Counts how deep values stand inside each other.
  struct inside {
    explicit inside(program_runner& r) : runner(r) {
      if (++runner.depth_ > runner.limits_.depth) runner.fail("too deep");
    }
    inside(const inside&) = delete;
    inside& operator=(const inside&) = delete;
    ~inside() { --runner.depth_; }
    program_runner& runner;
  };

  program_limits limits_;
  std::string_view rest_;  ///< that is not read yet
  std::map<std::string, double> variables_{};
  std::string problem_{}, got_{};
  double value_ = 0;  ///< of the last statement
  bool has_value_ = false, ended_ = false;
  index line_ = 0, steps_ = 0, depth_ = 0;
};

}  // namespace detail

/// Runs a program of assignments and arithmetic: a small part of Python. Lines are `name = value`,
/// `name += value`, a value, `print(value)`, `return value`, comments, and `def name():`, whose
/// body follows. Values have + - * / // % **, parentheses, and int, float, abs, round, min, max and
/// sum of values. There are no loops and no conditions, so a program always ends. The result is
/// what is returned, else the value of the last line. Errors: errc::invalid, naming the line, for
/// what is not understood, has no value or exceeds the limits.
inline result<double> run_program(std::string_view source,
                                  const program_limits& l = {}) LINNET_TRY {
  if (auto fit = detail::acceptable("run_program", "program_limits", l); !fit) return fit.error();
  return detail::program_runner(source, l).run();
}
LINNET_OR_OUT_OF_MEMORY("run_program")

LINNET_NAMESPACE_END
