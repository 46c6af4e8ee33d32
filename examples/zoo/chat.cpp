// SPDX-License-Identifier: MIT
// zoo chat: a conversation on the terminal. Ctrl-C ends an answer, not the program. A model without
// ChatML's marks goes on with the text: what the user and what the model writes are one.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <iostream>
#include <linnet/file/file.hpp>
#include <linnet/text/chatml.hpp>
#include <linnet/text/stream.hpp>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands.hpp"
#include "models.hpp"
#include "running.hpp"
#include "support.hpp"
#include "tokenizing.hpp"
#include "trained.hpp"

namespace zoo {

namespace {

using role = ln::chatml::role;

constexpr ln::index longest_part = 256;  // tokens that are read together

constexpr const char* help =
    "/reset forgets the conversation, /save FILE writes it as JSON, /quit or Ctrl-D ends; "
    "Ctrl-C ends an answer\n";

/// One message, with its ids as the model reads or wrote them.
struct turn {
  role who;
  std::string text;
  std::vector<ln::token> ids{};
};

/// A conversation and the model that holds its end up.
class conversation {
 public:
  conversation(running& model, const tokenizing& text, const chat_options& o)
      : model_(model), text_(text), o_(o) {
    if (has_marks(text)) format_ = take(ln::chatml::open(*text.pieces, text.name));
    reset();
  }

  /// Whether messages have marks around them.
  static bool has_marks(const tokenizing& text) {
    return text.pieces && text.pieces->find_added("<|im_start|>") >= 0 &&
           text.pieces->find_added("<|im_end|>") >= 0;
  }

  void reset() {
    turns_.clear();
    if (format_ && !o_.system.empty()) add(role::system, o_.system);
    kept_ = turns_.size();
    model_.reset();
    fed_.clear();
  }

  /// Answers, and writes the answer as it comes.
  void answer(const std::string& line) {
    add(role::user, line);
    turn reply{role::assistant, {}};
    if (format_) format_->append_opening(reply.ids);
    std::vector<ln::token> all;
    std::size_t first = kept_;
    while (std::ssize(all = ids_from(first, reply)) > room() && first + 1 < turns_.size())
      first += 2;
    if (std::ssize(all) > room()) {
      say("that is {} tokens with what stands around it, but beside an answer there is room for {} "
          "in {}: see --context\n",
          all.size(), room(), o_.context);
      turns_.pop_back();
      return;
    }
    const bool goes_on =
        all.size() > fed_.size() && std::equal(fed_.begin(), fed_.end(), all.begin());
    if (!goes_on) {
      model_.reset();
      fed_.clear();
    }
    const std::vector<ln::token> rest(all.begin() + std::ssize(fed_), all.end());
    const std::size_t begun = reply.ids.size();
    fed_ = std::move(all);
    write(rest, reply);
    fed_.insert(fed_.end(), reply.ids.begin() + static_cast<ln::index>(begun), reply.ids.end());
    if (!ended_) fed_.pop_back();  // chosen, but not read yet
    if (format_)
      format_->close(reply.ids);
    else
      append("\n", reply.ids);
    turns_.push_back(std::move(reply));
  }

  void save(const std::string& path) const {
    auto all = nlohmann::ordered_json::array();
    for (const turn& t : turns_)
      all.push_back({{"role", ln::chatml::name_of(t.who)}, {"content", t.text}});
    const std::string text =
        all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    take(ln::write_file(path, std::as_bytes(std::span(text))));
    say("saved {} messages to {}\n", turns_.size(), path);
  }

 private:
  running& model_;
  const tokenizing& text_;
  std::optional<ln::chatml> format_;  ///< none: plain text
  const chat_options& o_;
  std::vector<turn> turns_;
  std::size_t kept_ = 0;        ///< turns that are never forgotten: the system's
  std::vector<ln::token> fed_;  ///< what the model has read
  bool ended_ = false;          ///< the last answer came to its end by itself
  std::uint64_t answers_ = 0;

  void append(std::string_view text, std::vector<ln::token>& to) const {
    const std::vector<ln::token> ids = text_.encode(text);
    to.insert(to.end(), ids.begin(), ids.end());
  }
  void add(role who, const std::string& text) {
    turn& t = turns_.emplace_back(turn{who, text});
    if (format_)
      format_->append(who, text, t.ids);
    else
      append(text + "\n", t.ids);
  }

  /// Most tokens of a conversation that leave an answer some.
  ln::index room() const { return o_.context - std::min<ln::index>(o_.tokens, o_.context / 2); }
  /// The conversation's ids without the questions and answers before number `first`, with the
  /// beginning of a reply. The oldest ones are left out where an answer would find no room.
  std::vector<ln::token> ids_from(std::size_t first, const turn& reply) const {
    std::vector<ln::token> all;
    if (!format_) all = text_.opening;
    const auto put = [&](const turn& t) { all.insert(all.end(), t.ids.begin(), t.ids.end()); };
    for (std::size_t i = 0; i < kept_; ++i) put(turns_[i]);
    for (std::size_t i = first; i < turns_.size(); ++i) put(turns_[i]);
    put(reply);
    return all;
  }

  void write(const std::vector<ln::token>& rest, turn& reply) {
    ended_ = false;
    bool interrupted = false;
    ln::token previous = -1;
    ln::text_stream shown;
    const auto keep = [&](std::string_view text) {
      put_text(text);
      reply.text += text;
    };
    const stop_requests signals;
    const double start = now();
    const ln::index most = std::min<ln::index>(o_.tokens, o_.context - std::ssize(fed_));
    const ln::index written = generate(
        model_, rest, most,
        {.temperature = o_.temperature, .top_p = o_.top_p, .seed = o_.seed + answers_++},
        [&](ln::token id) {
          ended_ = std::find(text_.stops.begin(), text_.stops.end(), id) != text_.stops.end();
          if (ended_) return false;
          reply.ids.push_back(id);
          shown.push(text_.decode(std::exchange(previous, id), id), keep);
          interrupted = stop_requests::received() != 0;
          return !interrupted;
        });
    shown.flush(keep);
    put_text("\n");
    if (const int signal = stop_requests::received(); signal != 0 && signal != SIGINT)
      throw interruption(signal, "ended by a signal");
    if (interrupted) say("(interrupted)\n");
    if (o_.figures)
      say("read {} tokens, wrote {}, {:.1f} tokens/s\n", rest.size(), written,
          static_cast<double>(std::ssize(rest) + written) / (now() - start));
  }
};

/// Does what a line that begins with / asks for; false for /quit.
bool command(conversation& talk, const std::string& line) {
  const std::size_t space = line.find(' ');
  const std::string name = line.substr(0, space),
                    rest = space == line.npos ? "" : line.substr(space + 1);
  if (name == "/quit") return false;
  if (name == "/reset") {
    talk.reset();
    say("the conversation is forgotten\n");
  } else if (name == "/save" && !rest.empty()) {
    try {
      talk.save(rest);
    } catch (const failure& problem) {
      say("{}\n", problem.what());
    }
  } else {
    say("{}", help);
  }
  return true;
}

}  // namespace

void chat(const chat_options& asked) {
  chat_options o = asked;
  rounding how = o.how;
  if (how.storage == "auto")  // the fastest that rounds nothing that was not asked to be rounded
    how.storage = o.weights.empty() ? "q4_1" : how.compute != "f32" ? how.compute : "f32";
  // The folder of a model that zoo train wrote says what it is.
  const std::string name = is_trained(o.weights) ? "" : o.model;
  const runnable_preset preset = find_runnable(name, o.weights);
  if (preset.encodes)
    throw failure(preset.name + " is an encoder-decoder; zoo chat takes decoders");
  if (name.empty()) o.context = std::min<long>(o.context, preset.context);
  if (o.context > preset.context)
    throw failure(
        fmt::format("--context: {} is more than the model's {}", o.context, preset.context));
  const std::string weights = weights_of(name, o.weights);
  const tokenizing text = find_tokenizer(o.tokenizer, weights, preset);
  const auto model = open_runnable(preset, weights,
                                   {.target = o.context,
                                    .chunk = std::min<ln::index>(o.context, longest_part),
                                    .threads = o.threads},
                                   how);
  conversation talk(*model, text, o);
  if (!conversation::has_marks(text))
    say("{} has no marks of ChatML: the model goes on with your text\n", text.name);
  const bool asks = isatty(STDIN_FILENO) == 1;
  if (asks) say("{}", help);
  std::string line;
  for (;;) {
    if (asks) put_text("> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (!line.starts_with('/'))
      talk.answer(line);
    else if (!command(talk, line))
      return;
  }
  if (asks) put_text("\n");
}

}  // namespace zoo
