# samebits_module(NAME DEPENDS ...): the static library samebits_NAME from the folder's sources.
# *_test.cc become NAME_test, *_fuzz.cc a libFuzzer target each (and, without libFuzzer, a plain
# program that replays files: see samebits/base/fuzz_main.cc).
function(samebits_module name)
  cmake_parse_arguments(arg "" "" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${name}/*.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(fuzzers ${sources})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|_fuzz|fuzz_main)\\.cc$")

  list(TRANSFORM arg_DEPENDS PREPEND samebits_ REGEX "^(base|jinja|tensor|text|checkpoint|trace|numerics|kernels|graph|engine|compare|diagnose|report|evaluate)$")
  add_library(samebits_${name} STATIC ${sources})
  target_link_libraries(samebits_${name} PUBLIC ${arg_DEPENDS})
  if(SAMEBITS_FUZZ)
    target_compile_options(samebits_${name} PRIVATE -fsanitize=fuzzer-no-link)
    # Only what the fuzz targets need is built.
    set_target_properties(samebits_${name} PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()

  foreach(fuzzer ${fuzzers})
    get_filename_component(fuzz_name ${fuzzer} NAME_WE)
    if(SAMEBITS_FUZZ)
      add_executable(${fuzz_name} ${fuzzer})
      target_compile_options(${fuzz_name} PRIVATE -fsanitize=fuzzer)
      target_link_options(${fuzz_name} PRIVATE -fsanitize=fuzzer)
    elseif(SAMEBITS_TESTS)
      add_executable(${fuzz_name} ${fuzzer} base/fuzz_main.cc)
      string(REPLACE "_fuzz" "" corpus ${fuzz_name})
      add_test(NAME corpus_${corpus}
               COMMAND ${fuzz_name} ${PROJECT_SOURCE_DIR}/tests/corpus/${corpus})
    else()
      continue()
    endif()
    target_link_libraries(${fuzz_name} PRIVATE samebits_${name})
  endforeach()

  if(SAMEBITS_TESTS AND tests AND NOT SAMEBITS_FUZZ)
    add_executable(${name}_test ${tests})
    target_link_libraries(${name}_test PRIVATE samebits_${name} GTest::gmock GTest::gtest_main)
    target_compile_definitions(${name}_test PRIVATE
      SAMEBITS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    gtest_discover_tests(${name}_test TEST_PREFIX ${name}. NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60)
  endif()
endfunction()
