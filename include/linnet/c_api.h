// SPDX-License-Identifier: MIT
/* The C interface of a model that was compiled as C++: see docs/c-interface.md. C99 and C++.
 *
 * A library exports one function of your name, which gives a table of functions:
 *
 *     const linnet_api* my_model(uint32_t abi);
 *
 * It returns null for another LINNET_ABI than it was compiled with. No function throws, prints or
 * ends the program. A model is for one thread at a time; models are independent of each other. */
#ifndef LINNET_C_API_H
#define LINNET_C_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Number of this interface: it grows where a struct or a function changes. */
#define LINNET_ABI 1u
/* A label that does not count. */
#define LINNET_IGNORED (-100)

/* How a call ended; linnet_api.message says more. */
typedef enum linnet_code {
  LINNET_OK = 0,
  LINNET_IO = 1,            /* a file could not be opened, read or written */
  LINNET_MALFORMED = 2,     /* bytes that do not follow the format */
  LINNET_UNSUPPORTED = 3,   /* a file, or a call, that this model does not have */
  LINNET_MISMATCH = 4,      /* a file of another model */
  LINNET_MISSING = 5,       /* a tensor is absent */
  LINNET_OUT_OF_MEMORY = 6, /* an allocation failed */
  LINNET_INVALID = 7,       /* an argument: null, too short or outside its range */
  LINNET_REFUSED = 8        /* tokens that do not fit the model or its limits */
} linnet_code;

/* Limits and rates; 0 is the default of each but size. */
typedef struct linnet_options {
  size_t size;     /* sizeof(linnet_options) */
  int64_t context; /* most tokens of a text; 0: the model's context */
  int64_t chunk;   /* most tokens in one step of reading; 0: all */
  int64_t batch;   /* sequences of a training step; 0: the model is not trained */
  int64_t length;  /* most tokens of each of them; 0: the context */
  double rate;     /* learning rate; 0: 0.001 */
  int32_t threads; /* 0: 1 */
} linnet_options;

/* How tokens are chosen. */
typedef struct linnet_sampling {
  size_t size;        /* sizeof(linnet_sampling) */
  double temperature; /* 0 is greedy */
  int64_t top_k;      /* 0 keeps all */
  double top_p;       /* 1 keeps all; 0 counts as 1 */
  uint64_t seed;
  int64_t tokens; /* most tokens to generate; 0: as many as fit */
} linnet_sampling;

/* Weights, and what runs and trains them. */
typedef struct linnet_model linnet_model;

/* Called with each token and the pointer given to generate; 0 ends the text. */
typedef int (*linnet_on_token)(int32_t token, void* user);

typedef struct linnet_api {
  uint32_t abi;        /* LINNET_ABI */
  int32_t vocabulary;  /* ids are 0 to vocabulary - 1 */
  const char* version; /* of linnet, such as "0.1.0" */

  /* Opens weights: a file of save_packed(), which runs, or of save_npz(), which also trains. Bytes
   * in memory are copied. `options` may be null. `*model` is null where the call fails. */
  linnet_code (*open_file)(const char* path, const linnet_options* options, linnet_model** model);
  linnet_code (*open_memory)(const void* bytes, size_t size, const linnet_options* options,
                             linnet_model** model);
  /* Makes weights at random, to be trained. */
  linnet_code (*create)(uint64_t seed, const linnet_options* options, linnet_model** model);
  /* Gives a model back; null is no model. */
  void (*close)(linnet_model* model);
  /* Writes the weights as an .npz file. Weights of a packed file are LINNET_UNSUPPORTED. */
  linnet_code (*save)(linnet_model* model, const char* path);

  /* Forgets all tokens that were fed. */
  linnet_code (*reset)(linnet_model* model);
  /* Feeds tokens and writes the logits of what follows: `vocabulary` floats of room for `room`. */
  linnet_code (*feed)(linnet_model* model, const int32_t* tokens, size_t count, float* logits,
                      size_t room);
  /* Begins anew with a prompt and generates behind it. `sampling` may be null: greedy. `*written`,
   * unless null, counts the tokens that on_token got. */
  linnet_code (*generate)(linnet_model* model, const int32_t* prompt, size_t count,
                          const linnet_sampling* sampling, linnet_on_token on_token, void* user,
                          size_t* written);
  /* One step on tokens and labels [batch, length], the label being the token that follows. `*loss`,
   * unless null, is the mean loss before it, in nats. The next feed begins a new text. */
  linnet_code (*train)(linnet_model* model, const int32_t* tokens, const int32_t* labels,
                       size_t batch, size_t length, double* loss);

  /* Why the last call of this thread failed, in one line; "" where it did not. Valid until the
   * thread's next call. */
  const char* (*message)(void);
} linnet_api;

#ifdef __cplusplus
}
#endif

#endif
