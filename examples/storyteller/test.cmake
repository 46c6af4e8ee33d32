# SPDX-License-Identifier: MIT
# Tests the storyteller: cmake -D PROGRAM=storyteller -D FOLDER=examples/storyteller -P test.cmake
# With -D BUDGET=N the program may have N bytes.

# told(STORY_VARIABLE ARGUMENT...): what the program writes; it must succeed and complain of nothing.
function(told story)
  execute_process(COMMAND ${PROGRAM} ${ARGN} OUTPUT_VARIABLE out ERROR_VARIABLE err
                  RESULT_VARIABLE status)
  if(NOT status STREQUAL "0" OR NOT err STREQUAL "")
    message(SEND_ERROR "${ARGN}: status ${status}: ${err}")
  endif()
  set(${story} "${out}" PARENT_SCOPE)
endfunction()

# tells(EXPECTED ARGUMENT...): what the program must write.
function(tells expected)
  told(story ${ARGN})
  if(NOT story STREQUAL expected)
    message(SEND_ERROR "${ARGN}: expected\n${expected}\ngot\n${story}")
  endif()
endfunction()

# refuses(LINE ARGUMENT...): the one line that the program must say instead of a story.
function(refuses line)
  execute_process(COMMAND ${PROGRAM} ${ARGN} OUTPUT_VARIABLE out ERROR_VARIABLE err
                  RESULT_VARIABLE status)
  if(NOT status STREQUAL "2" OR NOT out STREQUAL "" OR NOT err STREQUAL "storyteller: ${line}\n")
    message(SEND_ERROR "${ARGN}: status ${status}, wrote \"${out}\", complained \"${err}\"")
  endif()
endfunction()

# Equal arguments tell equal stories, at every instruction-set level.
file(READ ${FOLDER}/story.txt recorded)
tells("${recorded}" --seed 6 Once "upon a time ")
foreach(level portable avx2 avx512)
  set(ENV{LINNET_SIMD} ${level})
  tells("${recorded}" --seed 6)
  tells("The little linnet was a little boy. He was very excited to explore the world and explore the world. He was so excited to explore\n" --temperature 0 --tokens 24 -- The little linnet)
endforeach()
unset(ENV{LINNET_SIMD})
told(other --seed 8)
if(other STREQUAL recorded)
  message(SEND_ERROR "two seeds told one story")
endif()

told(help --help)
if(NOT help MATCHES "^usage: storyteller .*--seed N.*--temperature X.*--tokens N.*Ctrl-C")
  message(SEND_ERROR "--help: ${help}")
endif()
refuses("--seed needs a whole number from 0, got \"-1\"" --seed -1)
refuses("--seed needs a whole number from 0, got nothing" --seed)
refuses("--temperature needs a number, got \"warm\"" --temperature warm)
refuses("sampler::open: sampling_options.top_p: expected 0 <= top_p <= 1 (1 keeps all), got 2" #
        --top-p 2)
refuses("--tokens needs a number from 0, got -3" --tokens -3)
refuses("unknown option --sed; --help names all" --sed 7)
string(REPEAT "the " 500 long)
refuses("the prompt has 501 tokens, at most 382 fit" ${long})

# Ctrl-C ends a story between tokens, with the line; where it comes too late, the story is whole. A
# shell lets its background programs ignore Ctrl-C, which GNU's env takes back.
if(UNIX)
  set(script
      [[d=; env --default-signal=INT true 2> /dev/null && d="env --default-signal=INT"
        t=$(mktemp)
        $d "$0" --seed 6 > $t & p=$!
        until [ -s $t ]; do :; done
        kill -INT $p; wait $p; echo $? >&2; cat $t; rm $t]])
  execute_process(COMMAND sh -c "${script}" ${PROGRAM} OUTPUT_VARIABLE out ERROR_VARIABLE status
                  TIMEOUT 60)
  string(LENGTH "${out}" length)
  math(EXPR length "${length} - 1")
  string(SUBSTRING "${out}" 0 ${length} told)
  string(SUBSTRING "${out}" ${length} -1 last)
  string(FIND "${recorded}" "${told}" at)
  if(NOT status MATCHES "^(130|0)\n$" OR NOT last STREQUAL "\n" OR NOT at EQUAL 0)
    message(SEND_ERROR "Ctrl-C: status ${status} behind \"${out}\"")
  endif()
endif()
if(EXISTS /dev/full)
  execute_process(COMMAND sh -c "\"$0\" > /dev/full" ${PROGRAM} ERROR_VARIABLE err)
  if(NOT err STREQUAL "storyteller: the output cannot be written\n")
    message(SEND_ERROR "a full disk: \"${err}\"")
  endif()
endif()

# The weights are those whose making is described, and the program is as small as promised.
file(SHA256 ${FOLDER}/story.bin sum)
file(READ ${FOLDER}/README.md described)
if(NOT described MATCHES "`${sum}`")
  message(SEND_ERROR "README.md describes other weights than ${sum}")
endif()
if(BUDGET)
  file(SIZE ${PROGRAM} size)
  if(size GREATER BUDGET)
    message(SEND_ERROR "the program has ${size} bytes, more than ${BUDGET}")
  endif()
endif()
