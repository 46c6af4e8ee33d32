// SPDX-License-Identifier: MIT
/* A program in C with a model that was compiled as C++: it learns to count, is saved, opened again
 * and counts. Then all that must be refused. */

#include <linnet/c_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const linnet_api* counting_model(uint32_t abi);

static int failed = 0;
#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) {                                            \
      printf("line %d: %s does not hold\n", __LINE__, #condition); \
      ++failed;                                                    \
    }                                                              \
  } while (0)

struct counted {
  int32_t expected;
  int32_t most; /* tokens, after which it asks to end */
  int right;
};

static int count(int32_t token, void* user) {
  struct counted* c = (struct counted*)user;
  c->right = c->right && token == ++c->expected;
  return c->expected < c->most;
}

static int counts_to(const linnet_api* api, linnet_model* model, int32_t most) {
  struct counted c = {0, 0, 1};
  const int32_t zero = 0;
  size_t written = 99;
  c.most = most;
  CHECK(api->generate(model, &zero, 1, NULL, count, &c, &written) == LINNET_OK);
  return c.right && c.expected == most && written == (size_t)most;
}

static int says(const linnet_api* api, const char* beginning) {
  const char* const line = api->message();
  const int same = strncmp(line, beginning, strlen(beginning)) == 0 && strchr(line, '\n') == NULL;
  if (!same) printf("said: %s\n", line);
  return same;
}

static void refusals(const linnet_api* api, linnet_model* model) {
  linnet_model* none = model;
  linnet_options options = {sizeof options, 0, 0, 0, 0, 0, 0};
  linnet_sampling sampling = {sizeof sampling, 0, 0, 0, 0, 0};
  const int32_t tokens[] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, outside[] = {9};
  float logits[9];
  size_t written = 7;
  double loss = -1;

  CHECK(api->open_file(NULL, NULL, &none) == LINNET_INVALID && none == NULL);
  CHECK(api->open_file("no/such/file", NULL, NULL) == LINNET_INVALID);
  CHECK(api->open_file("no/such/file", NULL, &none) == LINNET_IO && says(api, "no/such/file: "));
  CHECK(api->open_memory(NULL, 4, NULL, &none) == LINNET_INVALID && none == NULL);
  CHECK(api->open_memory("PK", 2, NULL, &none) == LINNET_MALFORMED && none == NULL);
  CHECK(says(api, "memory: end of the archive: expected "));
  CHECK(api->open_memory("", 0, NULL, &none) == LINNET_MALFORMED);
  CHECK(api->open_memory("linnetPK", 8, NULL, &none) == LINNET_MALFORMED);
  options.size = 8;
  CHECK(api->create(1, &options, &none) == LINNET_INVALID && none == NULL);
  CHECK(says(api, "open: options.size is not sizeof(linnet_options)"));
  options.size = sizeof options;
  options.context = -1;
  CHECK(api->create(1, &options, &none) == LINNET_INVALID && none == NULL);
  CHECK(says(api, "session::open: limits.target: expected "));
  options.context = 0;
  options.rate = -1;
  CHECK(api->create(1, &options, &none) == LINNET_INVALID && none == NULL);
  CHECK(says(api, "open: options: expected length, rate and threads of at least 0, got 0, -1"));
  options.rate = 0;

  CHECK(api->feed(NULL, tokens, 1, logits, 9) == LINNET_INVALID);
  CHECK(api->feed(model, NULL, 1, logits, 9) == LINNET_INVALID);
  CHECK(api->feed(model, tokens, 1, NULL, 9) == LINNET_INVALID);
  CHECK(api->feed(model, tokens, 1, logits, 8) == LINNET_INVALID &&
        says(api, "feed: room is below"));
  CHECK(api->feed(model, tokens, 0, logits, 9) == LINNET_REFUSED && says(api, "no tokens"));
  CHECK(api->feed(model, outside, 1, logits, 9) == LINNET_REFUSED &&
        says(api, "a token is outside"));
  CHECK(api->feed(model, tokens, 9, logits, 9) == LINNET_REFUSED && says(api, "more tokens than"));
  CHECK(api->generate(NULL, tokens, 1, NULL, count, NULL, &written) == LINNET_INVALID);
  CHECK(written == 0);
  CHECK(api->generate(model, NULL, 1, NULL, count, NULL, NULL) == LINNET_INVALID);
  CHECK(api->generate(model, tokens, 1, NULL, NULL, NULL, NULL) == LINNET_INVALID);
  CHECK(api->generate(model, outside, 1, NULL, count, NULL, NULL) == LINNET_REFUSED);
  sampling.temperature = -1;
  CHECK(api->generate(model, tokens, 1, &sampling, count, NULL, NULL) == LINNET_INVALID);
  sampling.size = 0;
  CHECK(api->generate(model, tokens, 1, &sampling, count, NULL, NULL) == LINNET_INVALID);
  CHECK(api->train(NULL, tokens, tokens, 1, 8, &loss) == LINNET_INVALID);
  CHECK(api->train(model, NULL, tokens, 1, 8, &loss) == LINNET_INVALID);
  CHECK(api->train(model, tokens, NULL, 1, 8, &loss) == LINNET_INVALID);
  CHECK(api->train(model, tokens, tokens, 2, 4, &loss) == LINNET_REFUSED && loss == -1);
  CHECK(says(api, "batch is larger than limits.batch"));
  CHECK(api->save(model, NULL) == LINNET_INVALID && api->save(NULL, "f") == LINNET_INVALID);
  CHECK(api->save(model, "no/such/folder/f") == LINNET_IO);
  options.batch = 1; /* refused calls change nothing, however many there are */
  CHECK(api->create(1, &options, &none) == LINNET_OK);
  for (written = 0; written < 20; ++written)
    CHECK(api->train(none, outside, tokens, 1, 1, &loss) == LINNET_REFUSED);
  CHECK(api->train(none, tokens, tokens, 1, 8, &loss) == LINNET_OK);
  api->close(none);
  CHECK(api->reset(NULL) == LINNET_INVALID);
  CHECK(api->reset(model) == LINNET_OK && says(api, "") && api->message()[0] == '\0');
  api->close(NULL);
}

int main(int count_of_arguments, char** arguments) {
  const linnet_api* const api = counting_model(LINNET_ABI);
  const char* const path = count_of_arguments > 1 ? arguments[1] : "counting.npz";
  const int32_t tokens[] = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  linnet_options options = {sizeof options, 0, 3, 1, 8, 1e-2, 1};
  linnet_model *model = NULL, *again = NULL, *copy = NULL;
  double first = 0, loss = 0;
  float logits[9], same[9];
  char* bytes = (char*)malloc(65536);
  size_t size = 0;
  FILE* file = NULL;
  int step = 0;

  CHECK(counting_model(LINNET_ABI + 1) == NULL && counting_model(0) == NULL);
  if (api == NULL || bytes == NULL) return 1;
  CHECK(api->abi == LINNET_ABI && api->vocabulary == 9 && api->version[0] == '0');
  CHECK(api->create(1, &options, &model) == LINNET_OK);
  if (model == NULL) return printf("%s\n", api->message()), 1;
  CHECK(api->train(model, tokens, tokens + 1, 1, 8, &first) == LINNET_OK);
  for (step = 0; step < 150; ++step)
    CHECK(api->train(model, tokens, tokens + 1, 1, 8, &loss) == LINNET_OK);
  CHECK(loss < 0.1 && first > 2 * loss);
  CHECK(counts_to(api, model, 8) && counts_to(api, model, 3)); /* also where the callback ends it */
  refusals(api, model);

  CHECK(api->save(model, path) == LINNET_OK);
  CHECK(api->open_file(path, NULL, &again) == LINNET_OK);
  file = fopen(path, "rb");
  if (file != NULL) size = fread(bytes, 1, 65536, file);
  if (file != NULL) fclose(file);
  CHECK(api->open_memory(bytes, size, &options, &copy) == LINNET_OK);
  memset(bytes, 0, 65536); /* it has a copy */
  free(bytes);
  CHECK(counts_to(api, again, 8) && counts_to(api, copy, 8));
  CHECK(api->train(again, tokens, tokens + 1, 1, 8, NULL) == LINNET_UNSUPPORTED);
  CHECK(api->train(copy, tokens, tokens + 1, 1, 8, NULL) == LINNET_OK);
  CHECK(api->reset(model) == LINNET_OK && api->reset(again) == LINNET_OK);
  CHECK(api->feed(model, tokens, 5, logits, 9) == LINNET_OK); /* in parts of 3 */
  CHECK(api->feed(again, tokens, 5, same, 9) == LINNET_OK);
  CHECK(logits[5] > logits[4] && same[5] > same[4]);
  api->close(copy);
  api->close(again);
  api->close(model);
  printf("counted in C, loss %.3f after %.3f; %d failed\n", loss, first, failed);
  return failed != 0;
}
