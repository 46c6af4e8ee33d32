// SPDX-License-Identifier: MIT
// The command line of what trains: zoo train, sweep and quickstart.

#include "command_line.hpp"
#include "support.hpp"
#include "support/ranks.hpp"
#include "support/study.hpp"

namespace zoo {

void add_threads(CLI::App& command, int& threads) {
  threads = default_threads();
  command.add_option("--threads", threads, "threads that share the work")
      ->transform(whole_in(1, 256))
      ->type_name("K")
      ->capture_default_str();
}

void add_seed(CLI::App& command, std::uint64_t& seed) {
  command.add_option("--seed", seed, "seed of the random numbers")
      ->transform(whole_in(std::uint64_t{0}, ~std::uint64_t{0}))
      ->type_name("S")
      ->capture_default_str();
}

namespace {

/// The options of every training.
void add_steps(CLI::App& c, course_options& o) {
  c.add_option("--steps", o.steps, "optimizer steps; makes a run repeatable")
      ->transform(whole_in(1, 100'000'000));
  c.add_option("--minutes", o.minutes, "time for training, unless --steps is given")
      ->check(number_in(1e-6, 100'000))
      ->capture_default_str();
  c.add_option("--batch", o.batch, "examples per step")
      ->transform(whole_in(1, 1024))
      ->capture_default_str();
  c.add_option("--rate", o.rate, "highest learning rate")
      ->check(number_in(1e-7, 1))
      ->capture_default_str();
  add_seed(c, o.seed);
  add_threads(c, o.threads);
}

/// The options that train, sweep and quickstart share.
CLI::App& add_course(CLI::App& app, const char* name, const char* what, course_options& o) {
  CLI::App& c = *app.add_subcommand(name, what);
  c.add_option("textfile", o.text, "text to learn from")->required()->check(CLI::ExistingFile);
  c.add_option("--model", o.model, "byte-decoder or byte-t5")->capture_default_str();
  add_steps(c, o);
  c.get_option("--minutes")->excludes("--steps");
  return c;
}

/// Refuses processes that would all do the same.
void refuse_several(const char* command) {
  const process_place here = this_process();
  if (here.alone()) return;
  be_quiet(!here.first());
  throw failure(fmt::format("zoo {} runs in one process; zoo train --text takes several", command));
}

/// Where a training is kept.
void add_keeping(CLI::App& c, train_options& o, CLI::Option* out) {
  c.add_flag("--resume", o.resume,
             "go on where the checkpoint stands, if it is there: with --steps to the same bits")
      ->needs(out);
  c.add_option("--save-every", o.save_every, "seconds from one checkpoint to the next")
      ->check(number_in(0, 1e6))
      ->capture_default_str()
      ->needs(out);
}

/// The options of a training of any model, to a folder; returns that of the text.
CLI::Option* add_text_options(CLI::App& c, train_options& o) {
  auto* const text =
      c.add_option("--text", o.texts,
                   "a file, or a folder whose .txt files are read; may be given several times")
          ->allow_extra_args(false)
          ->type_name("PATH");
  const auto add = [&](const char* name, auto& value, const char* what) {
    return c.add_option(name, value, what)->capture_default_str()->needs(text);
  };
  add("--mix", o.mix,
      "weights of texts, by names of files or of folders in a folder: wiki.txt=3,code=1; without, "
      "each token counts the same")
      ->type_name("NAME=W,...");
  add("--tokenizer", o.tokenizer, "bytes, byt5, gpt2:DIR, sentencepiece:FILE, or a tokenizer.json")
      ->type_name("TOKENIZER");
  add("--objective", o.objective,
      "next_token, prefix, fim, spans, independent, ul2, ul2r or masked; without, next_token for a "
      "decoder, spans for an encoder-decoder and masked for an encoder")
      ->type_name("WORD");
  add("--length", o.length, "tokens of an example; 0: the model's context, 256 at most")
      ->transform(whole_in(0L, 1'000'000L));
  add("--accumulate", o.accumulate, "batches of a step")->transform(whole_in(1L, 100'000L));
  add("--schedule", o.schedule, "of the rate: cosine, constant, inverse_sqrt, warmup_stable_decay");
  add("--warm-up", o.warm_up, "share of the steps in which the rate rises")->check(number_in(0, 1));
  add("--last-rate", o.last_rate, "share of --rate that a cosine ends with")
      ->check(number_in(0, 1));
  add("--decay", o.decay, "of weights, but by adafactor and sgd")->check(number_in(0, 10));
  add("--clip", o.clip, "largest norm of a gradient; 0: any")->check(number_in(0, 1e9));
  add("--dropout", o.dropout, "share of values that a step drops")->check(number_in(0, 0.99));
  add("--optimizer", o.optimizer, "adamw, adafactor, adamw_8bit, lion, muon, sgd or sophia");
  add("--compute", o.compute, "what products are computed in: f32, bf16, f16 or fp8");
  return text;
}

/// A command that trains to a folder from weights that are there.
CLI::App& add_tuning(CLI::App& app, const char* name, const char* what, train_options& o) {
  CLI::App& c = *app.add_subcommand(name, what);
  o.steps = 2000;
  o.minutes = 0;
  o.batch = 8;
  o.tokenizer.clear();
  add_steps(c, o);
  c.get_option("--minutes")->description("after which the training is put off; 0: no limit");
  add_text_options(c, o)->required();
  c.get_option("--tokenizer")
      ->description(
          "bytes, byt5, gpt2:DIR, sentencepiece:FILE, or a tokenizer.json; without, the one "
          "that comes with the weights");
  auto* const out =
      c.add_option("--out", o.out, "folder for the model, its tokenizer and the report")
          ->required()
          ->type_name("DIR");
  add_keeping(c, o, out);
  return c;
}

/// The options of zoo train --text.
void add_text_training(CLI::App& c, train_options& o) {
  auto* const text = add_text_options(c, o)->excludes(c.get_option("textfile"));
  text->description(
      "instead of TEXTFILE: a file, or a folder whose .txt files are read; trains any model with "
      "any tokenizer to the folder --out; may be given several times");
  c.get_option("--tokenizer")
      ->description(
          "bytes, byt5, bpe:N (N ids learned from the text), gpt2:DIR, sentencepiece:FILE, or a "
          "tokenizer.json");
  c.add_option("--parts", o.parts,
               "equal parts of a batch, which the processes of mpirun share: the same bits for any "
               "number of them; 0: under mpirun 8 or more, else one process")
      ->transform(whole_in(0L, 1024L))
      ->capture_default_str()
      ->needs(text);
  c.callback([&o, &c, text] {
    const auto given = [&](const char* name) { return c.get_option(name)->count() > 0; };
    if (text->count() == 0) {
      if (o.text.empty()) throw failure("a text is missing: TEXTFILE or --text");
      if (given("--steps") && given("--minutes"))
        throw failure("--minutes excludes --steps without --text");
      return train(o);
    }
    // Other models than the byte-level ones want other numbers, and --minutes is but a limit.
    if (!given("--steps")) o.steps = 2000;
    if (!given("--minutes")) o.minutes = 0;
    if (!given("--rate")) o.rate = 1e-3;
    if (!given("--batch")) o.batch = 8;
    train(o);
  });
}

}  // namespace

void add_train(CLI::App& app, train_options& o) {
  CLI::App& c =
      add_course(app, "train", "Train a byte-level model on a text, or any model with --text", o);
  c.get_option("textfile")->required(false);
  CLI::Option *const steps = c.get_option("--steps"), *const minutes = c.get_option("--minutes");
  steps->remove_excludes(minutes);
  minutes->remove_excludes(steps);
  c.get_option("--model")->description(
      "byte-decoder or byte-t5; with --text any preset, a preset with other numbers such as "
      "stlm-10m:vocabulary=4096, or a shape such as decoder:layers=4,d_model=128,heads=4; "
      "encoders, "
      "too; what zoo was not built with is compiled once");
  c.get_option("--steps")->description("optimizer steps; makes a run repeatable; 2000 with --text");
  c.get_option("--minutes")
      ->description(
          "time for training, unless --steps is given; with --text, the training is put off after "
          "it");
  c.get_option("--batch")->description("examples per step; 8 with --text");
  c.get_option("--rate")->description("highest learning rate; 0.001 with --text");
  c.add_option("--ffn", o.ffn, "feed-forward: standard, skip, 1w, 1w-relu, 2w, 3w")
      ->capture_default_str();
  auto* const out =
      c.add_option("--out", o.out,
                   "save the model here (safetensors), for zoo generate; while it trains, "
                   "FILE.ckpt holds what --resume needs; with --text, a folder")
          ->type_name("PATH");
  add_keeping(c, o, out);
  add_text_training(c, o);
}

void add_finetune(CLI::App& app, train_options& o) {
  o.rate = 1e-4;
  o.model.clear();
  CLI::App& c = add_tuning(app, "finetune", "Train a model that is there on more text", o);
  c.add_option("--model", o.model, "preset or shape; a folder of zoo train knows its own");
  c.add_option("--weights", o.weights,
               "folder of zoo train, GGUF or safetensors file, Hugging Face directory; without, "
               "what zoo fetch got")
      ->check(CLI::ExistingPath);
  const auto rank = [&](const char* name, long& value, const char* what,
                        const char* kind = "RANK") {
    return c.add_option(name, value, what)
        ->expected(0, 1)
        ->default_str("8")
        ->transform(whole_in(1L, 1024L))
        ->type_name(kind);
  };
  auto* const lora = rank("--lora", o.lora, "train an adapter of low-rank deltas alone");
  auto* const qlora =
      rank("--qlora", o.qlora, "the same on weights in NF4 with double quantization")
          ->excludes(lora);
  auto* const prompt =
      rank("--prompt", o.prompt, "train soft tokens before each text alone", "TOKENS")
          ->excludes(lora, qlora);
  auto* const prefix =
      rank("--prefix", o.prefix, "train keys and values before each text alone", "TOKENS")
          ->excludes(lora, qlora, prompt);
  rank("--bottleneck", o.bottleneck, "train narrow maps behind attention and feed-forwards alone",
       "WIDTH")
      ->excludes(lora, qlora, prompt, prefix);
  c.add_option("--lora-alpha", o.lora_alpha, "deltas are alpha / rank B A")
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  c.add_option("--lora-dropout", o.lora_dropout, "share of the inputs of A that a step drops")
      ->check(number_in(0, 0.99))
      ->capture_default_str();
  c.add_option("--lora-target", o.lora_target,
               "all, or ends of matrices' names such as q,v or attention.o,up")
      ->type_name("NAMES")
      ->capture_default_str();
  c.callback([&o, &c] {
    for (const char* const name : {"--lora-alpha", "--lora-dropout", "--lora-target"})
      if (c.get_option(name)->count() > 0 && o.lora == 0 && o.qlora == 0)
        throw failure(
            fmt::format("{}: goes with --lora or --qlora; give one, or leave it out", name));
    finetune(o);
  });
}

void add_distil(CLI::App& app, train_options& o) {
  o.rate = 1e-3;
  o.model.clear();
  o.taught = true;
  CLI::App& c =
      add_tuning(app, "distil", "Train a small model on text and on what a teacher says", o);
  c.add_option("--model", o.model,
               "the student: a preset or a shape such as decoder:layers=4,d_model=128,heads=4")
      ->required();
  c.add_option("--ffn", o.ffn, "its feed-forward: standard, skip, 1w, 1w-relu, 2w, 3w")
      ->capture_default_str();
  c.add_option("--teacher", o.teacher, "preset or shape; a folder of zoo train knows its own");
  c.add_option("--teacher-weights", o.weights,
               "folder of zoo train, GGUF or safetensors file, Hugging Face directory; without, "
               "what zoo fetch got")
      ->check(CLI::ExistingPath);
  c.add_option("--alpha", o.alpha, "weight of the text's own tokens in the loss")
      ->check(number_in(0, 1))
      ->capture_default_str();
  c.add_option("--temperature", o.temperature, "that both distributions are softened by")
      ->check(number_in(1e-3, 1e3))
      ->capture_default_str();
  c.add_option("--divergence", o.divergence,
               "between teacher and student: cross_entropy, kl, reverse_kl, jsd, total_variation")
      ->capture_default_str();
  c.add_option("--beta", o.beta, "the teacher's share in the mixture of jsd")
      ->check(number_in(0, 1))
      ->capture_default_str();
  auto* const match = c.add_option(
      "--match", o.match,
      "what else of the teacher is learned: hidden (states, by their mean square), cosine (their "
      "angle), ted (states behind filters that learn the text first), or without its logits "
      "relations (of queries, keys and values) or minilm (attention and relations of values)");
  c.add_option("--match-weight", o.match_weight, "weight of that in the loss")
      ->needs(match)
      ->check(number_in(0, 1e6))
      ->capture_default_str();
  c.add_option("--filter-steps", o.filter_steps,
               "optimizer steps of ted's filters; without, as many as --steps")
      ->needs(match)
      ->transform(whole_in(1L, 100'000'000L));
  c.callback([&o, &c] {
    const auto given = [&](const char* name) { return c.get_option(name)->count() > 0; };
    if (given("--temperature") && (o.match == "relations" || o.match == "minilm"))
      throw failure(fmt::format(
          "--match {}: --temperature is of learning from logits; leave it out", o.match));
    if (given("--filter-steps") && o.match != "ted")
      throw failure(fmt::format(
          "--match {}: --filter-steps is of --match ted, whose filters learn first; leave it out",
          o.match));
    if (given("--beta") && o.divergence != "jsd")
      throw failure("--beta: is the teacher's share in --divergence jsd alone; leave it out");
    distil(o);
  });
}

void add_sweep(CLI::App& app, report_options& o) {
  o.minutes = 6;
  CLI::App& c = add_course(app, "sweep", "Compare the feed-forward variants on a text", o);
  c.add_option("--report", o.report, "write an HTML report")->type_name("FILE");
  c.callback([&] {
    refuse_several("sweep");
    sweep(o);
  });
}

void add_quickstart(CLI::App& app, report_options& o) {
  o.minutes = 3;
  CLI::App& c = add_course(
      app, "quickstart", "Train, collapse, quantize, compare and report, in about four minutes", o);
  c.add_option("--report", o.report, "write an HTML report")->type_name("FILE");
  c.callback([&] {
    refuse_several("quickstart");
    quickstart(o);
  });
}

}  // namespace zoo
