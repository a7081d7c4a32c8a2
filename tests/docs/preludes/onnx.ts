/** A small decoder as model.onnx in the working directory, and a stand-in for transformers.js. */
import fs from 'node:fs';
import * as ort from 'onnxruntime-web';
import { decoder } from '../../support/onnx-decoder.js';

ort.env.wasm.numThreads = 1;
fs.writeFileSync('model.onnx', decoder({ vocab: 12 }).bytes);
fs.rmSync('reference.safetensors', { force: true });

export const Tensor = ort.Tensor;

type Model = (inputs: Record<string, ort.Tensor>) => Promise<ort.InferenceSession.ReturnType>;
interface Auto {
  from_pretrained(name: string, options: { readonly dtype: string }): Promise<Model>;
}
export const AutoModelForCausalLM: Auto = {
  from_pretrained: async () => {
    const session = await ort.InferenceSession.create(fs.readFileSync('model.onnx'));
    return (inputs) => session.run(inputs);
  },
};
