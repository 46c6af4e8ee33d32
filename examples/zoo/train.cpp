// zoo train: one byte-level model on one text, saved for zoo generate.

#include <fmt/format.h>

#include <cmath>

#include "commands.hpp"
#include "course.hpp"
#include "support.hpp"

namespace zoo {

void train(const train_options& o) {
  const byte_model kind = parse_byte_model(o.model);
  const variant ffn = parse_trainable(o.ffn);
  if (!o.out.empty()) check_writable(o.out);
  const corpus text = read_corpus(o.text);

  std::vector<student> students(1);
  student& s = students.front();
  s.name = o.model;
  s.model = make_learner(kind, ffn);
  const counts cost = s.model->cost(form::trained);
  fmt::print(stderr, "{} with feed-forward {}: {} parameters; {} bytes to learn from\n", o.model,
             o.ffn, grouped(cost.parameters), grouped(std::ssize(text.training)));
  const course_record record = train_together(students, text, o);
  fmt::print("{} steps in {:.1f} s, {} tokens/s, held out {:.4f} bits per byte\n",
             grouped(record.steps), record.seconds, grouped(std::lround(s.speed())),
             s.held_out.back().bits);
  if (o.out.empty()) return;
  s.model->save(o.out, o.model, o.ffn);
  fmt::print("saved {}\n", o.out);
}

}  // namespace zoo
