# Mutants of the sources: one place changed, and tests that must fail. Each has the headers of src/ in a copy that comes first,
# and compiles the sources that the place is in; the rest of them is the library's.

set(_headers "")
file(GLOB_RECURSE _headers CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR}/src src/*.h)

# diralign_mutant(NAME FILE FROM TO TEST SELECTION SOURCE...): FILE and SOURCE below src/, TEST below tests/native/; SELECTION, how the names
# of the tests begin.
function(diralign_mutant name file from to test selection)
  set(copy ${CMAKE_CURRENT_BINARY_DIR}/mutants/${name})
  foreach(source ${_headers} ${ARGN})
    file(READ ${CMAKE_CURRENT_SOURCE_DIR}/src/${source} text)
    if(source STREQUAL file)
      string(FIND "${text}" "${from}" place)
      if(place EQUAL -1)
        message(FATAL_ERROR "diralign: mutant ${name}: src/${file} no longer has ${from}")
      endif()
      string(REPLACE "${from}" "${to}" text "${text}")
    endif()
    set(before "")
    if(EXISTS ${copy}/${source})
      file(READ ${copy}/${source} before)
    endif()
    if(NOT text STREQUAL before)
      file(WRITE ${copy}/${source} "${text}")
    endif()
  endforeach()
  list(TRANSFORM ARGN PREPEND ${copy}/)
  add_executable(diralign_mutant_${name} tests/native/main.cc tests/native/${test} ${ARGN})
  target_include_directories(diralign_mutant_${name} BEFORE PRIVATE ${copy})
  target_link_libraries(diralign_mutant_${name} PRIVATE diralign_cuda)
  # They run for a moment, and compile for long; a wrong number is all that is looked for.
  set_target_properties(diralign_mutant_${name} PROPERTIES DIRALIGN_IS_PLAIN ON UNITY_BUILD ON)
  target_compile_options(diralign_mutant_${name} PRIVATE -O0 -g0)
  add_test(NAME mutant_${name} COMMAND diralign_mutant_${name} ${selection})
  # Of a name that no test has, nothing fails.
  set_tests_properties(mutant_${name} PROPERTIES PASS_REGULAR_EXPRESSION "FAILED ${selection}")
endfunction()

diralign_mutant(order_of_a_group objectives/batch_terms.h
  "return int64_t(terms.fields.best_first[sequence(k)])" "return k"
  groups_test.cc groups_of_two objectives/batch_loss.cc)
diralign_mutant(weight_of_a_likelihood objectives/batch_terms.h
  "objectives[i].weight * o.sft_weight * this->weight(units.unit_of(s))" "objectives[i].weight * o.sft_weight"
  fields_test.cc fields_weight_of_nothing objectives/batch_loss.cc)
diralign_mutant(slope_at_the_label backends/cpu/logits.cc
  "batch_.transform.by_logit(value, kernels_.load(row, label))" "float(value + 0 * label)"
  given_test.cc compute_given_by_definition backends/cpu/logits.cc)
diralign_mutant(merge_without_rescale rows/sums.h
  "scale = s.anchor == r.anchor ? 1 : ::exp(shift)" "scale = 1 + 0 * ::exp(shift)"
  distributed_test.cc distributed_words distributed/sharded_rows.cc)
diralign_mutant(label_of_every_shard jobs/batch.h
  "return own >= 0 && own < vocab ? int32_t(own) : -1" "return int32_t(own < 0 ? 0 : own < vocab ? own : vocab - 1)"
  distributed_test.cc distributed_words backends/cpu/logits.cc)
diralign_mutant(own_pairs_from_place_0 distributed/whole_batch.cc
  "o * size_t(units_.count) + own.first_unit" "o * size_t(units_.count)"
  distributed_test.cc distributed_pairs distributed/whole_batch.cc)
